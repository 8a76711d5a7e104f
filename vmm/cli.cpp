#include "vmm/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/base/error.h"
#include "vmm/base/options.h"
#include "vmm/base/units.h"
#include "vmm/completion.h"
#include "vmm/control.h"

namespace martlet {
namespace {

constexpr std::string_view kRunFooter = R"(Examples:
  martlet run /boot/vmlinuz -i initrd.img -c 2 -m 1G
  martlet run bzImage --root ./rootfs -a "quiet init=/bin/sh"
  martlet run vmlinuz -i initrd.img -d disk.img -n bridge=br0 -a "root=/dev/vda"
  martlet run bzImage --root ./rootfs --exec 'make test' --timeout 10m >out
  martlet run bzImage --root ./tests --timeout 60s --result verdict.json </dev/null
  martlet run vmlinuz -i initrd.img --timeout 2m --expect 'login:' --forbid '^FAILED' </dev/null
  make bzImage && git bisect run martlet run arch/x86/boot/bzImage --root ./tests --timeout 2m --exit bisect

Unless -a says otherwise, the kernel gets panic=-1 and console=ttyS0 (or hvc0, with --console).
On a terminal, Ctrl-A x ends the VM and Ctrl-A h shows the other keys.
SIGINT or SIGTERM presses the power button; a second one ends the VM.
SIGWINCH: the terminal, or a disk's image, has another size now. SIGQUIT: write a bundle now.
SIGUSR1: wait for gdb from now on. SIGUSR2: print statistics now.

Exit code:
  the guest's own, when it writes one byte to port 0x500 (or isa-debug-exit, 0xf4);
  with --exec, the command's (128+N: killed by signal N)
  0    powered off or reset, or all of --expect was seen
  1    --forbid was seen, --expect was not, or tests failed (KTAP)
  124  timed out
  125  the host or the command line is at fault (git bisect run skips it)
  126  the kernel panicked, oopsed or hangs; triple fault or KVM internal error
  128+N  ended by a second signal N
With --exit bisect: 0 good, 1 to 124 bad, 125 skip, never anything else.)";

constexpr std::string_view kTopFooter =
    R"(martlet COMMAND --help tells more. Documentation: docs/ in the source tree.)";

[[noreturn]] void refuse_unknown(std::string_view word, const std::vector<std::string>& known, std::string_view help) {
  throw HostError{fmt::format("'{}' is unknown{}; see {}", word, did_you_mean(word, known), help)};
}

/// Refuses what is left over after parsing `app`.
void refuse_extras(const CLI::App& app, std::string_view help) {
  const auto extras = app.remaining();
  if (extras.empty()) {
    return;
  }
  const auto option = std::ranges::find_if(extras, [](const std::string& word) { return word.starts_with('-'); });
  if (option == extras.end()) {
    throw HostError{fmt::format("'{}' is one argument too many; see {}", extras.front(), help)};
  }
  refuse_unknown(option->substr(0, option->find('=')), option_names(app), help);
}

std::uint32_t parse_cpus(const std::string& text) {
  std::uint32_t cpus = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpus);
  if (error != std::errc{} || end != text.data() + text.size() || cpus == 0) {
    throw HostError{fmt::format("--cpus {}: expected a number from 1 up", text)};
  }
  return cpus;
}

/// One of few words.
template <class T>
T parse_word(std::string_view word, std::string_view option,
             std::initializer_list<std::pair<std::string_view, T>> choices) {
  std::string words;
  for (const auto& [name, value] : choices) {
    if (name == word) {
      return value;
    }
    words += fmt::format("{}{}", words.empty() ? "" : ", ", name);
  }
  throw HostError{fmt::format("{} {}: expected one of {}", option, word, words)};
}

/// SIZE[,shared=on][,hugepages=on]
void parse_memory(const std::string& text, Config& config) {
  const auto parts = CLI::detail::split(text, ',');
  config.memory = parse_size(parts.front(), "--memory");
  for (auto part = std::next(parts.begin()); part != parts.end(); ++part) {
    if (*part == "shared=on") {
      config.backing = GuestMemory::Backing::Memfd;
    } else if (*part == "hugepages=on") {
      config.backing = GuestMemory::Backing::HugeTlb;
    } else if (*part == "shared=off" || *part == "hugepages=off") {
      config.backing = GuestMemory::Backing::Anonymous;
    } else {
      throw HostError{fmt::format("--memory: '{}' is unknown; write SIZE[,shared=on|off][,hugepages=on|off]", *part)};
    }
  }
}

/// CLI11's own usage line knows neither our names for values nor what is required.
class Formatter final : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string /*name*/) const override {
    std::string usage = "Usage: " + words_of(*app);
    if (app->get_name() == "run") {
      usage += " [OPTIONS] KERNEL";  // which may be an option, too
    } else if (app->get_name() == "completion") {
      usage += " bash";
    } else if (!command_names(*app).empty()) {
      usage += " COMMAND [OPTIONS]";
    } else if (app->get_name() != "check") {
      usage += " [OPTIONS]";
      for (const auto* option : app->get_options([](const CLI::Option* it) { return it->get_positional(); })) {
        usage += fmt::format(fmt::runtime(option->get_required() ? " {}" : " [{}]"), option->get_name(true));
      }
    }
    return usage + "\n";
  }
};

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
  CLI::App top{"Martlet: a minimal virtual machine monitor on /dev/kvm", "martlet"};
  top.formatter(std::make_shared<Formatter>());
  top.footer(std::string{kTopFooter});
  top.set_version_flag("-V,--version", "martlet " MARTLET_VERSION, "Print the version");
  top.set_help_flag("-h,--help", "Print this help");
  top.allow_extras();
  top.require_subcommand(0, 1);  // what follows a command is its own, even a word like "run"

  RunCommand run;
  auto& config = run.config;
  std::string kernel_option;
  std::string cpus;
  std::string memory;
  std::string serial;
  std::string console;
  std::string transport;
  std::vector<std::string> disks;
  std::vector<std::string> nics;
  std::vector<std::string> ports;
  std::string timeout;
  std::string hang_timeout;
  std::string fail_on;
  std::string exit_style;
  std::string bundle;
  bool nokaslr = false;
  auto* run_app = top.add_subcommand("run", "Boot a kernel");
  run_app->footer(std::string{kRunFooter});
  run_app->allow_extras();
  run_app->add_option("KERNEL", config.kernel, "A kernel: bzImage, or ELF vmlinux")->group("");
  run_app->add_option("-k,--kernel", kernel_option, "The kernel, as an option: bzImage, or ELF vmlinux")
      ->group("Guest");
  run_app->add_option("-i,--initrd", config.initrds, "An initial RAM disk; several are concatenated")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->group("Guest");
  run_app->add_option("--root", config.root, "Pack directory DIR into an initramfs, in memory")
      ->type_name("DIR")
      ->group("Guest");
  run_app
      ->add_option(
          "--exec", config.exec,
          "Run CMD by /bin/sh in --root or -i, instead of their /init: its stdin, stdout, stderr and exit status\n"
          "are martlet's own, and the consoles are silent unless --serial or --console leads them elsewhere")
      ->type_name("CMD")
      ->group("Guest");
  run_app->add_option("-a,--append", config.append, "Parameters for the kernel's command line")
      ->type_name("ARGS")
      ->group("Guest");
  run_app->add_option("-c,--cpus", cpus, "Virtual CPUs [1]")->type_name("N")->group("Guest");
  run_app
      ->add_option("-m,--memory", memory,
                   "Memory, with K, M, G or T; a bare number is MiB [512M].\n"
                   "shared=on: in a memfd; hugepages=on: from the host's reserved 2 MiB pages")
      ->type_name("SIZE[,shared=on][,hugepages=on]")
      ->group("Guest");
  run_app->add_option("--dtb", config.dtb, "Hand the kernel a device tree: 'auto' makes one")
      ->type_name("auto|FILE")
      ->group("Guest");
  run_app
      ->add_option("--serial", serial,
                   "Where the serial console goes [stdio]: stdio, null, pty, file=PATH or socket=PATH")
      ->type_name("TARGET")
      ->group("Console");
  const auto add_list = [&](const char* names, std::vector<std::string>& values, const char* help, const char* type) {
    run_app->add_option(names, values, help)->type_name(type)->allow_extra_args(false)->group("Devices");
  };
  add_list("-d,--disk", disks,
           "A virtio disk: raw image, block device, or with format=qcow2 such an image (and backing=FILE,\n"
           "backing_format=raw|qcow2); readonly=on, serial=TEXT, cache=writeback|direct|unsafe,\n"
           "overlay=FILE|tmp (writes go there),\n"
           "queues=N, block_size=512|4096, rate=BYTES, iops=N, burst=BYTES (a second)",
           "[path=]FILE[,KEY=VALUE…]");
  add_list("-n,--net", nics,
           "A virtio network card: on a TAP of its own on a bridge, on TAP NAME, on inherited descriptor N,\n"
           "or served by who listens at SOCKET (vhost-user: OVS, DPDK);\n"
           "mac=ADDRESS, mtu=N, queues=PAIRS, vhost=auto|on|off, rate=BYTES, burst=BYTES (a second),\n"
           "pcap=FILE; on a bridge: spoof=deny|allow, vlan=N, vlans=A-B+C, native=N, isolated=on|off, policy=FILE",
           "bridge=NAME|tap=NAME|macvtap=NAME|fd=N|user|vhost-user=SOCKET[,KEY=VALUE…]");
  run_app->add_flag("--rng", config.rng, "A virtio source of entropy")->group("Devices");
  run_app->add_option("--transport", transport, "How the guest finds its virtio devices [pci]")
      ->type_name("pci|mmio")
      ->group("Devices");
  run_app
      ->add_option("--console", console,
                   "A virtio console (hvc0), which becomes the kernel's; the serial one speaks until it is there")
      ->type_name("TARGET")
      ->group("Console");
  run_app
      ->add_option("--port", ports, "A virtio port, in the guest /dev/virtio-ports/NAME, to a TARGET as for --serial")
      ->type_name("name=NAME,TARGET")
      ->allow_extra_args(false)
      ->group("Console");
  run_app->add_option("--timeout", timeout, "End the VM after DURATION (90s, 500ms, 5m); exit code 124")
      ->type_name("DURATION")
      ->group("Verdict");
  run_app
      ->add_option("--hang-timeout", hang_timeout,
                   "End the VM, exit code 126, once its consoles were silent for DURATION and it hangs:\n"
                   "all CPUs halted, or one spins, with interrupts off. One that waits does not hang")
      ->type_name("DURATION")
      ->group("Verdict");
  const auto add_pattern = [&](const char* name, std::vector<std::string>& patterns, const char* help) {
    run_app->add_option(name, patterns, help)->type_name("REGEX")->allow_extra_args(false)->group("Verdict");
  };
  add_pattern("--expect", run.rules.expect,
              "End the VM with success once a console line, or a prompt, matches; given several times, once all did.\n"
              "With --exec, the VM ends with the command; what is missing by then fails the run");
  add_pattern("--forbid", run.rules.forbid, "End the VM with exit code 1 once a console line matches");
  run_app
      ->add_option("--fail-on", fail_on,
                   "What the kernel says that makes the run fail, exit code 126 [oops];\n"
                   "if given, the VM ends soon after it was said, else the kernel may go on")
      ->type_name("warn|oops|panic")
      ->group("Verdict");
  run_app->add_option("--exit", exit_style, "Whose exit codes to use [guest]: see below")
      ->type_name("guest|bisect")
      ->group("Verdict");
  run_app->add_option("--junit", run.junit_file, "Write the verdict and the guest's tests (KTAP) to FILE, as JUnit XML")
      ->type_name("FILE")
      ->group("Verdict");
  run_app->add_option("--result", run.result_file, "Write the exact verdict to FILE, as JSON")
      ->type_name("FILE")
      ->group("Verdict");
  run_app->add_flag("--stats", run.stats, "Print exits by reason, device and address when the VM ends")
      ->group("Verdict");
  run_app
      ->add_option("--trace", run.trace_file,
                   "Write the start, the boot's milestones, exits and queue turns to FILE, for Perfetto")
      ->type_name("FILE")
      ->group("Verdict");
  run_app
      ->add_option("--gdb", run.gdb,
                   "Wait for gdb at [HOST:]PORT, on this host unless HOST says otherwise, or at unix:PATH")
      ->type_name("ADDRESS")
      ->group("Debugging");
  run_app->add_flag("--gdb-wait", run.gdb_wait, "Stop before the first instruction, until gdb says go [--gdb 1234]")
      ->group("Debugging");
  run_app
      ->add_option("--bundle", bundle,
                   "When the verdict is bad, write what can be known of it to DIR: consoles, the kernel's log,\n"
                   "registers and backtraces, last exits, a vmcore")
      ->type_name("DIR[,vmcore=raw|zstd|none]")
      ->group("Debugging");
  run_app->add_option("--name", run.name, "What martlet dump may call this VM, beside its PID")
      ->type_name("NAME")
      ->group("Debugging");
  run_app->add_option("--vmlinux", run.vmlinux, "The kernel's ELF file or System.map, for backtraces")
      ->type_name("FILE")
      ->group("Debugging");
  run_app->add_flag("--nokaslr", nokaslr, "Put the kernel where it was linked, for debuggers: nokaslr")
      ->group("Debugging");

  DumpCommand dump;
  std::string dump_where;
  auto* dump_app = top.add_subcommand("dump", "Write what can be known of a running VM, as --bundle does; it runs on");
  dump_app->allow_extras();
  dump_app->add_option("VM", dump.vm, "The VM's PID, or its --name")->required();
  dump_app->add_option("-o,--output", dump_where, "Where to [./martlet-dump-VM]; vmcore=zstd: vmcore.zst")
      ->type_name("DIR[,vmcore=raw|zstd|none]");
  auto* check_app = top.add_subcommand("check", "Tell what this host can do, and the fix for what it can't");
  NetCommand net;
  auto* net_app = top.add_subcommand("net", "Virtual switches: make, list, show and delete them");
  net_app->allow_extras();
  net_app->require_subcommand(0, 1);
  add_net_commands(*net_app, net);

  std::string shell;
  auto* completion_app = top.add_subcommand("completion", "Print shell completion: source <(martlet completion bash)");
  completion_app->add_option("SHELL", shell, "bash")->required()->check(CLI::IsMember({"bash"}));

  const auto parsed_app = [&]() -> CLI::App& {
    auto* app = &top;
    while (!app->get_subcommands().empty()) {
      app = app->get_subcommands().front();
    }
    return *app;
  };
  const auto help_of = [](const CLI::App& app) { return words_of(app) + " --help"; };
  try {
    top.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return PrintCommand{parsed_app().help()};
  } catch (const CLI::CallForVersion& version) {
    return PrintCommand{std::string{version.what()} + "\n"};
  } catch (const CLI::ParseError& error) {
    throw HostError{fmt::format("{}; see {}", error.what(), help_of(parsed_app()))};
  }
  auto& parsed = parsed_app();
  if (const auto commands = command_names(parsed); !commands.empty()) {
    const auto extras = parsed.remaining();
    if (extras.empty() && &parsed == &top) {
      throw HostError{"what shall I do? Try: martlet run KERNEL; see martlet --help"};
    }
    if (extras.empty()) {
      throw HostError{
          fmt::format("{} wants a command: {}; see {}", words_of(parsed), fmt::join(commands, ", "), help_of(parsed))};
    }
    auto known = option_names(parsed);
    known.insert(known.end(), commands.begin(), commands.end());
    refuse_unknown(extras.front(), known, help_of(parsed));
  }
  refuse_extras(top, "martlet --help");
  refuse_extras(parsed, help_of(parsed));

  if (dump_app->parsed()) {
    dump.where = dump_where.empty() ? BundleOptions{.directory = "martlet-dump-" + dump.vm}
                                    : parse_bundle(dump_where, "--output");
    return dump;
  }
  if (net_app->parsed()) {
    return net;
  }
  if (check_app->parsed()) {
    return CheckCommand{};
  }
  if (completion_app->parsed()) {
    return PrintCommand{bash_completion(top)};
  }
  if (config.kernel.empty()) {
    config.kernel = kernel_option;
  } else if (!kernel_option.empty()) {
    throw HostError{"the kernel is given twice: as -k " + kernel_option + " and as " + config.kernel};
  }
  if (config.kernel.empty()) {
    throw HostError{"no kernel given: martlet run [options] KERNEL; see martlet run --help"};
  }
  if (!cpus.empty()) {
    config.cpus = parse_cpus(cpus);
  }
  if (!memory.empty()) {
    parse_memory(memory, config);
  }
  if (!serial.empty()) {
    config.serial = parse_serial_target(serial);
  } else if (config.exec) {
    config.serial.kind = SerialTarget::Kind::Null;
  }
  std::ranges::transform(disks, std::back_inserter(config.disks), virtio::parse_disk);
  std::ranges::transform(nics, std::back_inserter(config.nics), parse_net);
  const auto by_others = [](const NetOptions& nic) { return !nic.vhost_user.empty(); };
  if (config.backing == GuestMemory::Backing::Anonymous && std::ranges::any_of(config.nics, by_others)) {
    config.backing = GuestMemory::Backing::Memfd;  // who serves the rings must be able to map them
  }
  std::ranges::transform(ports, std::back_inserter(config.ports), virtio::parse_port_options);
  if (!console.empty()) {
    config.console = parse_serial_target(console);
  }
  if (transport == "mmio") {
    config.transport = Transport::Mmio;
  } else if (!transport.empty() && transport != "pci") {
    throw HostError{fmt::format("--transport {}: expected pci or mmio", transport)};
  }
  if (nokaslr) {
    config.append += config.append.empty() ? "nokaslr" : " nokaslr";
  }
  if (!bundle.empty()) {
    run.bundle = parse_bundle(bundle, "--bundle");
  }
  if (!run.name.empty()) {
    check_vm_name(run.name);
  }
  if (run.gdb_wait && !run.gdb) {
    run.gdb = kGdbDefault;
  }
  if (!timeout.empty()) {
    config.timeout = parse_duration(timeout, "--timeout");
  }
  if (!hang_timeout.empty()) {
    run.hang_timeout = parse_duration(hang_timeout, "--hang-timeout");
  }
  if (!fail_on.empty()) {
    run.rules.fail_on = parse_word<Severity>(
        fail_on, "--fail-on", {{"warn", Severity::Warn}, {"oops", Severity::Oops}, {"panic", Severity::Panic}});
    run.ends_when_failed = true;
  }
  run.rules.awaits_end = config.exec.has_value();
  if (!exit_style.empty()) {
    run.exit_style =
        parse_word<ExitStyle>(exit_style, "--exit", {{"guest", ExitStyle::Guest}, {"bisect", ExitStyle::Bisect}});
  }
  run.command_line.assign(argv, argv + argc);
  return run;
}

}  // namespace martlet
