#include "vmm/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "vmm/base/error.h"

namespace martlet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Command parse(std::initializer_list<const char*> words) {
  std::vector<const char*> argv{"martlet"};
  argv.insert(argv.end(), words);
  return parse_command_line(static_cast<int>(argv.size()), argv.data());
}

RunCommand parse_run(std::initializer_list<const char*> words) { return std::get<RunCommand>(parse(words)); }

std::string refusal(std::initializer_list<const char*> words) {
  try {
    static_cast<void>(parse(words));
  } catch (const HostError& error) {
    return error.what();
  }
  return "(accepted)";
}

TEST(CommandLine, EveryOptionReachesTheConfig) {
  const auto run = parse_run({"run",       "bzImage", "-i",        "a.img",  "-i",    "b.img", "--root",
                              "dir",       "-a",      "quiet x=1", "-c",     "4",     "-m",    "2G,shared=on",
                              "--timeout", "90s",     "--result",  "r.json", "--dtb", "auto",  "--stats"});
  EXPECT_EQ(run.config.kernel, "bzImage");
  EXPECT_EQ(run.config.initrds, (std::vector<std::string>{"a.img", "b.img"}));
  EXPECT_EQ(run.config.root, "dir");
  EXPECT_EQ(run.config.append, "quiet x=1");
  EXPECT_EQ(run.config.cpus, 4U);
  EXPECT_EQ(run.config.memory, 2ULL << 30U);
  EXPECT_EQ(run.config.backing, GuestMemory::Backing::Memfd);
  EXPECT_EQ(run.config.timeout, std::chrono::seconds{90});
  EXPECT_EQ(run.config.dtb, "auto");
  EXPECT_EQ(run.result_file, "r.json");
  EXPECT_TRUE(run.stats);
}

TEST(CommandLine, ExecSilencesTheSerialConsoleUnlessToldWhereTo) {
  const auto run = parse_run({"run", "bzImage", "--root", "dir", "--exec", "make -C /src test"});
  const auto& config = run.config;
  EXPECT_TRUE(run.rules.awaits_end);
  EXPECT_EQ(config.exec, "make -C /src test");
  EXPECT_EQ(config.serial.kind, SerialTarget::Kind::Null);
  EXPECT_EQ(parse_run({"run", "bzImage", "--exec", "x", "--serial", "file=log"}).config.serial.kind,
            SerialTarget::Kind::File);
  EXPECT_EQ(parse_run({"run", "bzImage"}).config.serial.kind, SerialTarget::Kind::Stdio);
  EXPECT_FALSE(parse_run({"run", "bzImage"}).rules.awaits_end);
}

TEST(CommandLine, DevicesReachTheConfigInTheirOrder) {
  const auto config =
      parse_run({"run", "bzImage", "-d", "a.img,serial=one", "--disk", "path=b.img,readonly=on", "-n", "bridge=br0",
                 "--net", "tap=tap7,mac=52:54:00:00:00:01", "--console", "socket=hvc", "--port", "name=agent,pty",
                 "--port", "name=log,file=log", "--rng", "--transport", "mmio"})
          .config;
  ASSERT_EQ(config.disks.size(), 2U);
  EXPECT_EQ(config.disks[0].path, "a.img");
  EXPECT_EQ(config.disks[0].serial, "one");
  EXPECT_EQ(config.disks[1].access, virtio::DiskAccess::ReadOnly);
  ASSERT_EQ(config.nics.size(), 2U);
  EXPECT_EQ(config.nics[0].bridge, "br0");
  EXPECT_EQ(config.nics[1].tap, "tap7");
  ASSERT_TRUE(config.console);
  EXPECT_EQ(config.console->kind, SerialTarget::Kind::Socket);
  ASSERT_EQ(config.ports.size(), 2U);
  EXPECT_EQ(config.ports[0].name, "agent");
  EXPECT_EQ(config.ports[1].target.path, "log");
  EXPECT_TRUE(config.rng);
  EXPECT_EQ(config.transport, Transport::Mmio);
  EXPECT_EQ(count_virtio_devices(config), 7U) << "named ports are one device, and not the console's";
}

TEST(CommandLine, BadDevicesNameTheirOption) {
  EXPECT_THAT(refusal({"run", "b", "-d", "a.img,readonyl=on"}), AllOf(HasSubstr("--disk"), HasSubstr("readonly")));
  EXPECT_THAT(refusal({"run", "b", "-n", "bridge=br0,mac=nonsense"}), AllOf(HasSubstr("-n "), HasSubstr("nonsense")));
  EXPECT_THAT(refusal({"run", "b", "--port", "socket=x"}), AllOf(HasSubstr("--port"), HasSubstr("name")));
  EXPECT_THAT(refusal({"run", "b", "--transport", "isa"}), AllOf(HasSubstr("--transport"), HasSubstr("pci or mmio")));
}

TEST(CommandLine, TheKernelMayBeAnOptionAndTheOrderIsFree) {
  EXPECT_EQ(parse_run({"run", "-k", "vmlinux"}).config.kernel, "vmlinux");
  EXPECT_EQ(parse_run({"run", "-i", "initrd", "vmlinux"}).config.kernel, "vmlinux");
  EXPECT_EQ(parse_run({"run", "vmlinux", "-c", "2"}).config.cpus, 2U);
  EXPECT_THAT(refusal({"run", "-k", "a", "b"}), HasSubstr("twice"));
}

TEST(CommandLine, UnknownWordsAreNamedAndTheNearestSuggested) {
  EXPECT_THAT(refusal({"run", "bzImage", "--cpu", "2"}), AllOf(HasSubstr("--cpu"), HasSubstr("--cpus")));
  EXPECT_THAT(refusal({"run", "bzImage", "--timout=3s"}), AllOf(HasSubstr("--timout"), HasSubstr("--timeout")));
  EXPECT_THAT(refusal({"run", "bzImage", "--zzzzzzzzz"}), AllOf(HasSubstr("--zzzzzzzzz"), HasSubstr("--help")));
  EXPECT_THAT(refusal({"rnu", "bzImage"}), AllOf(HasSubstr("rnu"), HasSubstr("did you mean run")));
  EXPECT_THAT(refusal({"--versoin"}), HasSubstr("--version"));
  EXPECT_THAT(refusal({"run", "a", "b"}), HasSubstr("'b'"));
  EXPECT_THAT(refusal({}), HasSubstr("martlet run KERNEL"));
  EXPECT_THAT(refusal({"run"}), HasSubstr("no kernel given"));
}

TEST(CommandLine, BadValuesNameTheirOption) {
  EXPECT_THAT(refusal({"run", "k", "-c", "0"}), HasSubstr("--cpus 0"));
  EXPECT_THAT(refusal({"run", "k", "-c", "two"}), HasSubstr("--cpus two"));
  EXPECT_THAT(refusal({"run", "k", "-c", "-1"}), HasSubstr("-1"));
  EXPECT_THAT(refusal({"run", "k", "-m", "lots"}), AllOf(HasSubstr("--memory"), HasSubstr("lots")));
  EXPECT_THAT(refusal({"run", "k", "-m", "1G,huge=on"}), HasSubstr("huge=on"));
  EXPECT_THAT(refusal({"run", "k", "--timeout", "soon"}), AllOf(HasSubstr("--timeout"), HasSubstr("soon")));
  EXPECT_THAT(refusal({"run", "k", "--serial", "fax"}), HasSubstr("fax"));
  EXPECT_THAT(refusal({"run", "k", "-m"}), HasSubstr("memory"));
}

TEST(CommandLine, HelpAndVersionAndCompletionAreText) {
  const auto help = std::get<PrintCommand>(parse({"run", "--help"})).text;
  for (const auto* word : {"--initrd", "--memory", "--serial", "--timeout", "124", "125", "126", "Ctrl-A"}) {
    EXPECT_THAT(help, HasSubstr(word));
  }
  EXPECT_THAT(std::get<PrintCommand>(parse({"--help"})).text, AllOf(HasSubstr("run"), HasSubstr("check")));
  EXPECT_THAT(std::get<PrintCommand>(parse({"--version"})).text, HasSubstr("martlet 0."));
  EXPECT_THAT(std::get<PrintCommand>(parse({"completion", "bash"})).text,
              AllOf(HasSubstr("--initrd"), HasSubstr("complete -o default -F _martlet martlet")));
  EXPECT_THAT(refusal({"completion", "tcsh"}), HasSubstr("tcsh"));
  EXPECT_TRUE(std::holds_alternative<CheckCommand>(parse({"check"})));
}

TEST(CommandLine, NetHasCommandsOfItsOwn) {
  EXPECT_TRUE(std::get<NetCommand>(parse({"net", "create", "br0", "--mode", "private"})).run);
  EXPECT_TRUE(std::get<NetCommand>(parse({"net", "show", "list"})).run);  // a switch may have any name
  EXPECT_THAT(std::get<PrintCommand>(parse({"net", "show", "--help"})).text,
              HasSubstr("martlet net show [OPTIONS] [NAME]"));
  EXPECT_THAT(std::get<PrintCommand>(parse({"net", "--help"})).text, HasSubstr("martlet net COMMAND"));
  EXPECT_THAT(refusal({"net"}), HasSubstr("create, list, show, delete, port"));
  EXPECT_THAT(refusal({"net", "crate"}), HasSubstr("did you mean create?"));
  EXPECT_THAT(refusal({"net", "create"}), AllOf(HasSubstr("NAME"), HasSubstr("martlet net create --help")));
  EXPECT_THAT(refusal({"net", "create", "a", "b"}), HasSubstr("'b'"));
  EXPECT_THAT(refusal({"net", "create", "a", "--mod=private"}), HasSubstr("did you mean --mode?"));
  EXPECT_THAT(std::get<PrintCommand>(parse({"completion", "bash"})).text, HasSubstr("net/create) words="));
}

TEST(KernelCommandLine, AddsAConsoleAndAnEndToPanicsUnlessToldOtherwise) {
  Config config;
  EXPECT_EQ(kernel_command_line(config), "console=ttyS0 panic=-1");
  config.append = "quiet";
  EXPECT_EQ(kernel_command_line(config), "console=ttyS0 panic=-1 quiet");
  config.append = "quiet console=hvc0 panic=10";
  EXPECT_EQ(kernel_command_line(config), "quiet console=hvc0 panic=10");
  config.append = "netconsole=x nopanic=1";
  EXPECT_EQ(kernel_command_line(config), "console=ttyS0 panic=-1 netconsole=x nopanic=1");
  config.append = "";
  config.console = SerialTarget{};
  EXPECT_EQ(kernel_command_line(config), "earlycon=uart8250,io,0x3f8 console=hvc0 panic=-1");
}

TEST(KernelCommandLine, TellsOfVirtioMmioWhereAcpiDoesNot) {
  Config config;
  config.rng = true;
  config.console = SerialTarget{};
  config.append = "console=hvc0 acpi=off panic=1";
  EXPECT_EQ(kernel_command_line(config), config.append) << "PCI is found without being told";
  config.transport = Transport::Mmio;
  EXPECT_EQ(kernel_command_line(config),
            config.append + " virtio_mmio.device=4K@0xfeb00000:5 virtio_mmio.device=4K@0xfeb01000:6");
  config.append = "console=hvc0 panic=1";
  EXPECT_EQ(kernel_command_line(config), config.append) << "ACPI says it";
}

}  // namespace
}  // namespace martlet
