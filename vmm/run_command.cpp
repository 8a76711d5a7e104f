#include "vmm/run_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "vmm/base/error.h"
#include "vmm/bundle.h"
#include "vmm/control.h"
#include "vmm/debug/dmesg.h"
#include "vmm/debug/judge.h"
#include "vmm/debug/junit.h"
#include "vmm/debug/post_mortem.h"
#include "vmm/debug/trace.h"
#include "vmm/debug/verdict.h"
#include "vmm/debug/vmcoreinfo.h"
#include "vmm/dump_command.h"
#include "vmm/gdb_access.h"
#include "vmm/machine.h"
#include "vmm/signals.h"
#include "vmm/start_clock.h"
#include "vmm/supervisor.h"
#include "vmm/terminal.h"

namespace martlet {
namespace {

constexpr std::size_t kExitsKept = 1000;
constexpr std::size_t kConsoleLines = 40;
constexpr std::size_t kExitsTraced = std::size_t{1} << 18U;  // of each vCPU: 12 MiB

/// The machine's configuration with what the command line asks to be kept of its run.
Config with_recording(const RunCommand& command) {
  auto config = command.config;
  if (command.trace_file) {
    config.recorded_exits = kExitsTraced;
    config.recorded_queues = true;
  } else if (command.stats || command.bundle) {
    config.recorded_exits = kExitsKept;
  }
  return config;
}

/// While the guest runs a terminal may be raw, and needs its \r.
void print_statistics(Machine& machine, const StartClock& clock) {
  std::string text;
  for (const auto& phase : clock.phases()) {
    text += fmt::format("start: {:<34}  {:>8.0f} us of CPU\n", phase.name,
                        std::chrono::duration<double, std::micro>{phase.cpu}.count());
  }
  text += machine.statistics();
  if (::isatty(STDERR_FILENO) == 1) {
    for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) {
      text.insert(at, 1, '\r');
    }
  }
  fmt::print(stderr, "{}", text);
}

void follow_terminal_size(Machine& machine) {
  winsize size{};
  if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
    machine.resize_console({.columns = size.ws_col, .rows = size.ws_row});
  }
}

/// Who does what signals ask for.
struct Attendants {
  GdbAccess& gdb;
  Bundles& bundles;
  const StartClock& clock;
  bool exec;
};

/// The first SIGINT or SIGTERM presses the power button, the second ends the VM; with --exec nobody is there to answer
/// a button, and the first one does. SIGWINCH says that a size has changed: the terminal's, or that of a disk's image.
/// SIGQUIT asks for a bundle, SIGUSR1 lets gdb in, SIGUSR2 asks for statistics.
void handle_signals(SignalWatch& signals, Machine& machine, const Attendants& attendants) {
  auto& [gdb, bundles, clock, exec] = attendants;
  signals.deliver(machine.loop(), [&machine, &gdb = gdb, &bundles = bundles, &clock = clock, exec = exec,
                                   asked = false](int signal) mutable {
    if (signal == SIGQUIT) {
      bundles.write_now();
      return;
    }
    if (signal == SIGUSR1) {
      gdb.open_now(kGdbDefault);
      return;
    }
    if (signal == SIGUSR2) {
      machine.look([&machine, &clock] { print_statistics(machine, clock); });
      return;
    }
    if (signal == SIGWINCH) {
      follow_terminal_size(machine);
      machine.resize_disks();
      return;
    }
    if (asked || exec) {
      machine.stop({.kind = Ending::Kind::Signal,
                    .code = signal,
                    .detail = fmt::format("{}signal {}", exec ? "" : "a second ", signal)});
      return;
    }
    asked = true;
    machine.press_power_button();
    say("pressed the power button; a second signal ends the VM");
  });
}

/// What is typed on a terminal: Martlet's own commands are obeyed, the rest goes to the guest.
void obey(EscapeFilter& filter, std::span<const std::byte> typed, Machine& machine) {
  using Command = EscapeFilter::Command;
  for (const auto& piece : filter.feed(typed)) {
    machine.type(piece.bytes);
    if (piece.command == Command::Quit) {
      machine.stop({.kind = Ending::Kind::Quit, .detail = "by Ctrl-A x"});
    } else if (piece.command == Command::Help) {
      fmt::print(stderr, "{}", EscapeFilter::kHelp);
    } else if (piece.command == Command::Nmi) {
      machine.send_nmi();
    } else if (piece.command == Command::Break) {
      machine.send_break();
    }
  }
}

/// martlet dump; a host that does not let us listen has no such thing.
void listen_for_requests(std::optional<ControlSocket>& control, Machine& machine, const std::string& name,
                         Bundles& bundles) {
  try {
    control.emplace(machine.loop(), name, [&bundles](std::string_view request, const ControlSocket::Reply& reply) {
      try {
        const auto where = bundle_of_request(request);
        bundles.write_now(where, [reply, where](const std::string& trouble) {
          trouble.empty() ? reply.done(where.directory) : reply.failed(trouble);
        });
      } catch (const HostError& error) {
        reply.failed(error.what());
      }
    });
  } catch (const HostError& error) {
    say(error.what());
  }
}

bool has_stdin(const Config& config) {
  return config.serial.kind == SerialTarget::Kind::Stdio ||
         (config.console && config.console->kind == SerialTarget::Kind::Stdio);
}

/// Runs the machine with the terminal lent to its guest, if there is one.
Ending run_on_terminal(Machine& machine, const Config& config) {
  if (!has_stdin(config) || ::isatty(STDIN_FILENO) == 0) {
    return machine.run();
  }
  follow_terminal_size(machine);
  const RawTerminal terminal{STDIN_FILENO};
  machine.loop().watch(terminal.continued_fd(), EPOLLIN, [&](std::uint32_t) {
    drain_counter(terminal.continued_fd());
    machine.resume_input();
  });
  auto ending = machine.run();
  machine.loop().unwatch(terminal.continued_fd());
  return ending;
}

/// Where a guest stood that hung, ran out of time or crashed its CPU: by its kernel's symbols, if it or --vmlinux has
/// any. Returns that name, the first if there are several.
std::string name_places(Ending& ending, const Machine& machine, const std::string& vmlinux) {
  using Kind = Ending::Kind;
  const bool crashed = (ending.kind == Kind::TripleFault || ending.kind == Kind::KvmError) && ending.vcpu >= 0;
  const bool tells =
      (ending.kind == Kind::Hang || ending.kind == Kind::Timeout) && ending.detail.find("0x") != std::string::npos;
  if (!crashed && !tells) {
    return {};
  }
  try {
    const auto cpus = machine.cpu_states();
    const auto symbols = find_symbols(machine.memory(), cpus, vmlinux, machine.vmcoreinfo());
    if (crashed) {
      const auto& cpu = cpus.at(static_cast<std::size_t>(ending.vcpu));
      const auto pc = cpu.sregs.cs.base + cpu.regs.rip;
      return symbols.find(pc) ? symbols.describe(pc) : std::string{};
    }
    auto named = name_addresses(ending.detail, symbols);
    ending.detail = std::move(named.text);
    return std::move(named.first);
  } catch (const HostError& error) {
    say(error.what());
    return {};
  }
}

/// What a kernel said last and no console was there for: it is still in its memory.
void read_last_words(Judge& judge, const Ending& ending, const Machine& machine, std::chrono::milliseconds elapsed) {
  using Kind = Ending::Kind;
  const bool lost = ending.kind == Kind::ExecFailed && ending.code == Ending::kExecLost;
  const bool sudden =
      lost || ending.kind == Kind::Reset || ending.kind == Kind::TripleFault || ending.kind == Kind::Panic;
  if (!sudden || judge.knows_why()) {
    return;
  }
  // Not everywhere: a second for each GiB, if there is none, is too long for a guest that just resets.
  if (const auto info = find_vmcoreinfo(machine.memory(), machine.vmcoreinfo(), LookFor::InPages)) {
    if (const auto log = read_dmesg(machine.memory(), *info)) {
      judge.hear_log(*log, elapsed);
    }
  }
}

/// A file that cannot be read is found out before the guest runs, not when its names are wanted.
void check_readable(const std::string& path) {
  std::array<std::byte, 1> first{};
  read_exactly(open_file(path, O_RDONLY).get(), first, 0, path);
}

Supervisor::Time start_of(const StartClock& clock) { return Supervisor::Time{std::chrono::nanoseconds{clock.begin()}}; }

std::chrono::milliseconds elapsed_since(const StartClock& clock) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start_of(clock));
}

/// What must not outlive the machine.
struct Leaving {
  std::optional<Supervisor>& supervisor;
  ~Leaving() { supervisor.reset(); }
};

Verdict run_machine(const RunCommand& command, StartClock& clock, Judge& judge) {
  const auto config = with_recording(command);
  if (!command.vmlinux.empty()) {
    check_readable(command.vmlinux);
  }
  std::optional<TraceFile> trace;
  if (command.trace_file) {
    trace.emplace(*command.trace_file);
  }
  SignalWatch signals{SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGQUIT, SIGUSR1, SIGUSR2};
  EscapeFilter filter;
  std::optional<Supervisor> supervisor;
  Machine* typed_at = nullptr;  // nothing is typed before the loop runs
  Machine::FrontEnd front_end;
  if (has_stdin(config) && ::isatty(STDIN_FILENO) == 1) {
    front_end.typed = [&](std::span<const std::byte> keys) { obey(filter, keys, *typed_at); };
  }
  Bundles* bundling = nullptr;
  front_end.said = [&](ConsoleName console, std::span<const std::byte> output) {
    if (bundling != nullptr) {
      bundling->hear(output);
    }
    if (supervisor) {
      supervisor->hear(console, output);
    }
  };
  Machine machine{config, clock, std::move(front_end)};
  typed_at = &machine;
  const Leaving leaving{supervisor};
  supervisor.emplace(machine, judge, command, start_of(clock));
  GdbAccess gdb{machine};
  if (command.gdb) {
    gdb.open(*command.gdb);
  }
  if (command.gdb_wait) {
    gdb.wait_for_client();
  }
  Bundles bundles{command.bundle, quoted(command.command_line), command.vmlinux, machine};
  bundling = &bundles;
  handle_signals(signals, machine, {.gdb = gdb, .bundles = bundles, .clock = clock, .exec = config.exec.has_value()});
  std::optional<ControlSocket> control;
  listen_for_requests(control, machine, command.name, bundles);
  std::ranges::for_each(machine.notices(), say);
  auto ending = run_on_terminal(machine, config);
  std::ranges::for_each(machine.troubles(), say);
  if (command.stats) {
    print_statistics(machine, clock);
  }
  if (trace) {
    machine.recorder()->write(*trace, clock);
    trace->finish();
  }
  const auto where = name_places(ending, machine, command.vmlinux);
  read_last_words(judge, ending, machine, elapsed_since(clock));
  auto verdict = judge.conclude(ending, elapsed_since(clock));
  gdb.machine_ended(verdict.exit_code);
  if (verdict.where.empty()) {
    verdict.where = where;
  }
  if (config.exec && !verdict.silent && verdict.name != "guest-exit") {
    // Its console was silent; why its command got no further may be there.
    if (const auto last = bundles.console().last(kConsoleLines); !last.empty()) {
      say("the last of its console:\n" + last);
    }
  }
  if (command.bundle && verdict.exit_code != 0) {
    bundles.write(to_json(verdict, command.command_line));
  }
  return verdict;
}

void write_file(const Fd& file, const std::string& text, const std::string& path) {
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    fail_errno(errno, "cannot write " + path);
  }
}

/// What the kernel complained of, and what the verdict is. An end that a user expects needs no words.
void tell(const Verdict& verdict) {
  constexpr std::size_t kMostFindings = 10;
  for (std::size_t i = 0; i < std::min(verdict.findings.size(), kMostFindings); ++i) {
    const auto& finding = verdict.findings[i];
    if (finding.text != verdict.detail) {
      say(describe(finding));
    }
  }
  if (verdict.findings.size() > kMostFindings) {
    say(fmt::format("and {} more; see --result", verdict.findings.size() - kMostFindings));
  }
  if (verdict.name == "host-error") {
    say(verdict.detail);
  } else if (!verdict.silent) {
    say(describe(verdict));
  }
}

}  // namespace

int run_guest(const RunCommand& command) {
  StartClock clock;
  clock.mark("program start");
  const auto open = [](const std::optional<std::string>& path) {
    return path ? open_file(*path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : Fd{};
  };
  const Fd result = open(command.result_file);
  const Fd junit = open(command.junit_file);
  Verdict verdict;
  try {
    Judge judge{command.rules};
    verdict = run_machine(command, clock, judge);
  } catch (const HostError& error) {
    verdict = verdict_of({.kind = Ending::Kind::HostError, .detail = error.what()}, elapsed_since(clock));
  }
  if (command.exit_style == ExitStyle::Bisect) {
    verdict.exit_code = bisect_code(verdict);
  }
  tell(verdict);
  if (result) {
    write_file(result, to_json(verdict, command.command_line), *command.result_file);
  }
  if (junit) {
    write_file(junit, to_junit(verdict), *command.junit_file);
  }
  return verdict.exit_code;
}

}  // namespace martlet
