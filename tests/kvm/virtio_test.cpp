// The virtio driver guests, which know nothing of Martlet (they pass under QEMU too), against its devices: over
// PCI and MMIO, on both rings, told of used buffers in every way there is.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include <ostream>

#include "tests/kvm/martlet.h"
#include "tests/kvm/network.h"
#include "tests/support/line.h"
#include "tests/support/sectors.h"
#include "vmm/base/fd.h"

namespace martlet::test {
namespace {

struct Way {
  const char* name;
  const char* transport;
  const char* words;
};
std::ostream& operator<<(std::ostream& stream, const Way& way) { return stream << way.transport << " " << way.words; }

constexpr Way kWays[] = {
    {"PciSplitPolled", "pci", "config=ports"},
    {"PciSplitMsix", "pci", "irq=msix"},
    {"PciSplitMsixIndirect", "pci", "irq=msix indirect=on event=on"},
    {"PciSplitWire", "pci", "irq=wire event=on"},
    {"PciPackedPolled", "pci", "ring=packed indirect=on"},
    {"PciPackedMsix", "pci", "ring=packed irq=msix event=on"},
    {"PciPackedMsixIndirect", "pci", "ring=packed irq=msix event=on indirect=on"},
    {"PciPackedWire", "pci", "ring=packed irq=wire"},
    {"MmioSplitPolled", "mmio", "event=on"},
    {"MmioSplitWire", "mmio", "irq=wire"},
    {"MmioPackedPolled", "mmio", "ring=packed"},
    {"MmioPackedWire", "mmio", "ring=packed irq=wire indirect=on event=on"},
};

Guest guest_on(const Way& way, std::string_view name, const std::string& words, std::vector<std::string> options) {
  options.insert(options.end(), {"--transport", way.transport, "-m", "64M"});
  auto append = std::string{way.words} + " " + words;
  if (std::string_view{way.transport} == "mmio") {
    append += " transport=mmio acpi=off";  // without ACPI, devices are announced on the command line
  }
  return {.name = name, .append = std::move(append), .options = std::move(options)};
}

/// All is well, and it said so on the last line, which begins with this.
void expect_report(const Outcome& guest, std::string_view name) {
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_EQ(guest.out.find("FAILED"), std::string::npos) << guest;
  EXPECT_NE(guest.out.find(std::string{name} + ": requests "), std::string::npos) << guest;
  EXPECT_EQ(guest.err, "") << guest;
}

class Virtio : public testing::TestWithParam<Way> {};

TEST_P(Virtio, Rng) { expect_report(run_martlet(guest_on(GetParam(), "virtio_rng", "", {"--rng"})), "rng"); }

TEST_P(Virtio, Block) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 128);
  expect_report(run_martlet(guest_on(GetParam(), "virtio_blk", "strict=1 serial=martlet-7 sectors=128 size=64",
                                     {"-d", "path=" + disk + ",serial=martlet-7,queues=2"})),
                "blk");
  EXPECT_TRUE(holds_what_was_written(read_file(disk)));
}

TEST_P(Virtio, BlockReadOnly) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 64);
  const auto before = read_file(disk);
  expect_report(
      run_martlet(guest_on(GetParam(), "virtio_blk", "readonly=1 sectors=64", {"-d", "path=" + disk + ",readonly=on"})),
      "blk");
  EXPECT_TRUE(read_file(disk) == before);
}

// What QEMU answers by giving the device up: here each is refused, and the next good request is served.
TEST_P(Virtio, BlockSurvivesRequestsThatBreakTheRules) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 128);
  const auto guest =
      run_martlet(guest_on(GetParam(), "virtio_blk", "hostile=1 sectors=128 size=64", {"-d", "path=" + disk}));
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_EQ(guest.out.find("FAILED"), std::string::npos) << guest;
  EXPECT_TRUE(holds_what_was_written(read_file(disk)));
}

/// It says `greeting`, then what is said to it.
void talk_to(const Guest& guest, const std::string& socket, std::string_view greeting) {
  Subprocess vmm{{.command = martlet_command(guest)}};
  Line user{connect_to(socket)};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  EXPECT_TRUE(user.wait_for(greeting)) << vmm.wait();
  const auto text = typed(5000);
  user.type(text + "the end");
  EXPECT_TRUE(user.wait_for(text + "the end")) << user.seen();
  user.type("\4");
  expect_report(vmm.wait(), "console");
}
void talk_to_console(const Way& way, const std::string& words) {
  const TempDir directory;
  const auto socket = directory.file("console");
  talk_to(guest_on(way, "virtio_console", words, {"--console", "socket=" + socket, "--port", "name=log,null"}), socket,
          "this is the console\n");
}
void talk_to_port(const Way& way, const std::string& words) {
  const TempDir directory;
  const auto socket = directory.file("agent");
  talk_to(guest_on(way, "virtio_console", "port=agent" + words,
                   {"--port", "name=log,null", "--port", "name=agent,socket=" + socket}),
          socket, "this is a port\n");
}
TEST(VirtioPty, IsToldOf) {
  Subprocess vmm{{.command = martlet_command(
                      {.name = "virtio_console", .options = {"--console", "pty", "--port", "name=agent,pty"}})}};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  const auto open_told = [&](std::string_view whose) {
    const auto at = vmm.err().find(whose);
    EXPECT_NE(at, std::string::npos) << vmm.err();
    const auto begin = vmm.err().find('/', at);
    return open_file(vmm.err().substr(begin, vmm.err().find_first_of("\r\n", begin) - begin), O_RDWR | O_NOCTTY);
  };
  const auto agent = open_told("port agent is /dev/pts/");
  Line line{open_told("the virtio console is /dev/pts/")};
  EXPECT_TRUE(line.wait_for("this is the console\n"));
  line.type("hello");
  EXPECT_TRUE(line.wait_for("hello"));  // before the terminal hangs up, which drops what nobody has read
  line.type("\4");
  EXPECT_EQ(vmm.wait().exit_code, 0);
}

TEST_P(Virtio, Console) { talk_to_console(GetParam(), ""); }
TEST_P(Virtio, ConsoleSurvivesWhatBreaksTheRules) { talk_to_console(GetParam(), "hostile=1"); }
TEST_P(Virtio, NamedPort) { talk_to_port(GetParam(), ""); }
TEST_P(Virtio, NamedPortSurvivesWhatBreaksTheRules) { talk_to_port(GetParam(), " hostile=1"); }

TEST_P(Virtio, ConsoleHasTheTerminalsSize) {
  Terminal terminal;
  const auto resize = [&](unsigned short rows, unsigned short columns) {
    const winsize size{.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(::ioctl(terminal.user(), TIOCSWINSZ, &size), 0);
  };
  resize(37, 111);
  Subprocess vmm{
      {.command = martlet_command(guest_on(GetParam(), "virtio_console", "window=1", {"--console", "stdio"})),
       .input = Subprocess::Input::Terminal,
       .output = Subprocess::Output::Terminal,
       .terminal = &terminal}};
  ASSERT_TRUE(vmm.wait_for("window 111 037")) << vmm.wait();
  resize(50, 132);
  EXPECT_TRUE(vmm.wait_for("window 132 050")) << vmm.wait();
  vmm.type("\4");
  const auto ended = vmm.wait();
  EXPECT_EQ(ended.exit_code, 0) << ended;
}

INSTANTIATE_TEST_SUITE_P(Every, Virtio, testing::ValuesIn(kWays),
                         [](const auto& instance) { return std::string{instance.param.name}; });

class VirtioProbe : public testing::TestWithParam<Way> {};

TEST_P(VirtioProbe, FindsAllDevicesAsTheyShouldBe) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 64);
  const auto guest =
      run_martlet(guest_on(GetParam(), "virtio_probe", "strict=1 expect=4",
                           {"-d", "path=" + disk, "--rng", "--console", "null", "--port", "name=log,null"}));
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_TRUE(guest.out.ends_with("virtio devices 4\n")) << guest;
}

INSTANTIATE_TEST_SUITE_P(By, VirtioProbe,
                         testing::Values(Way{"Ecam", "pci", "config=ecam"}, Way{"Ports", "pci", "config=ports"},
                                         Way{"Mmio", "mmio", ""}),
                         [](const auto& instance) { return std::string{instance.param.name}; });

// --- The network: in a network namespace of the test's own, whose kernel answers as 10.0.2.2.

class VirtioNet : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (const auto why = no_network(); !why.empty()) {
      GTEST_SKIP() << why;
    }
  }
};

TEST_P(VirtioNet, EchoesComeBackThroughATap) {
  for (const char* words : {"mac=02:4d:61:72:74:6c", "mac=02:4d:61:72:74:6c buffer=256"}) {
    const auto guest = guest_on(GetParam(), "virtio_net", words, {"-n", "tap=tap0,mac=02:4d:61:72:74:6c"});
    expect_report(run({.command = in_network(kTap, martlet_command(guest))}), "net");
  }
}

TEST_P(VirtioNet, SurvivesWhatBreaksTheRules) {
  const auto guest = guest_on(GetParam(), "virtio_net", "hostile=1 size=64", {"-n", "tap=tap0,vhost=off"});
  expect_report(run({.command = in_network(kTap, martlet_command(guest))}), "net");
}

// A TAP that whoever starts Martlet has opened, IFF_NO_PI and IFF_VNET_HDR set.
TEST_P(VirtioNet, EchoesComeBackThroughATapThatWasInherited) {
  std::vector<std::string> command{"python3", "-c", R"py(
import fcntl, os, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'tap0', 0x5002))  # TUNSETIFF
os.dup2(tap, 5)
os.execvp(sys.argv[1], sys.argv[1:])
)py"};
  const auto martlet = martlet_command(guest_on(GetParam(), "virtio_net", "", {"-n", "fd=5"}));
  command.insert(command.end(), martlet.begin(), martlet.end());
  expect_report(run({.command = in_network(kTap, command)}), "net");
}

TEST_P(VirtioNet, EchoesComeBackThroughABridgeAndNothingIsLeftOnIt) {
  const auto guest = guest_on(GetParam(), "virtio_net", "count=4", {"-n", "bridge=br0"});
  const auto ended = run({.command = in_network(kBridge, martlet_command(guest))});
  expect_report(ended, "net");
  EXPECT_EQ(ended.out.find("left behind"), std::string::npos) << ended;
}

INSTANTIATE_TEST_SUITE_P(Every, VirtioNet, testing::ValuesIn(kWays),
                         [](const auto& instance) { return std::string{instance.param.name}; });

TEST(VirtioDisk, Qcow2OverItsBackingFile) {
  const TempDir directory;
  const auto base = directory.file("base.img");
  const auto top = directory.file("top.qcow2");
  const auto flat = directory.file("flat.img");
  write_disk(base, 128);
  const auto before = read_file(base);
  const auto image = [](std::vector<std::string> command) { return run({.command = std::move(command)}).exit_code; };
  ASSERT_EQ(image({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "-F", "raw", "-b", base, top}),
            0);
  const auto disk = "path=" + top + ",format=qcow2,backing=" + base + ",backing_format=raw,serial=martlet-7,queues=2";
  expect_report(
      run_martlet(guest_on(kWays[1], "virtio_blk", "strict=1 serial=martlet-7 sectors=128 size=64", {"-d", disk})),
      "blk");
  EXPECT_EQ(image({"qemu-img", "check", "-q", top}), 0);
  ASSERT_EQ(image({"qemu-img", "convert", "-O", "raw", top, flat}), 0);
  EXPECT_TRUE(holds_what_was_written(read_file(flat)));
  EXPECT_TRUE(read_file(base) == before);
}

}  // namespace
}  // namespace martlet::test
