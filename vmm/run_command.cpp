#include "vmm/run_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string_view>

#include "vmm/base/error.h"
#include "vmm/debug/verdict.h"
#include "vmm/machine.h"
#include "vmm/signals.h"
#include "vmm/start_clock.h"

namespace martlet {
namespace {

/// A line of ours on stderr; \r, because the terminal may be raw.
void say(std::string_view text) { fmt::print(stderr, "martlet: {}\r\n", text); }

void print_statistics(Machine& machine, const StartClock& clock) {
  for (const auto& phase : clock.phases()) {
    fmt::print(stderr, "start: {:<34}  {:>8.0f} us of CPU\n", phase.name,
               std::chrono::duration<double, std::micro>{phase.cpu}.count());
  }
  fmt::print(stderr, "{}", machine.statistics());
}

/// The first SIGINT or SIGTERM presses the power button, the second ends the VM.
void handle_signals(SignalWatch& signals, Machine& machine) {
  signals.deliver(machine.loop(), [&machine, asked = false](int signal) mutable {
    if (asked) {
      machine.stop({.kind = Ending::Kind::Signal, .code = signal, .detail = fmt::format("a second signal {}", signal)});
      return;
    }
    asked = true;
    machine.press_power_button();
    say("pressed the power button; a second signal ends the VM");
  });
}

Ending run_machine(const RunCommand& command, StartClock& clock) {
  SignalWatch signals{SIGINT, SIGTERM, SIGHUP};
  Machine machine{command.config, clock};
  handle_signals(signals, machine);
  std::optional<Timer> timeout;
  if (command.config.timeout) {
    timeout.emplace(machine.loop(), [&] {
      machine.stop({.kind = Ending::Kind::Timeout,
                    .detail = fmt::format("still running after {} ms", command.config.timeout->count())});
    });
    timeout->start_once(*command.config.timeout);
  }
  if (!machine.serial().pty_path().empty()) {
    say("the serial console is " + machine.serial().pty_path());
  }
  auto ending = machine.run();
  if (!machine.serial().trouble().empty()) {
    say(machine.serial().trouble());
  }
  if (machine.unread_output() != 0) {
    say(fmt::format("{} bytes of serial output lost: nobody read them", machine.unread_output()));
  }
  if (command.stats) {
    print_statistics(machine, clock);
  }
  return ending;
}

/// Endings that a user expects need no words.
bool speaks_for_itself(const Ending& ending) {
  using Kind = Ending::Kind;
  return ending.kind == Kind::PowerOff || ending.kind == Kind::Reset || ending.kind == Kind::GuestExit ||
         ending.kind == Kind::Quit;
}

}  // namespace

int run_guest(const RunCommand& command) {
  const auto start = std::chrono::steady_clock::now();
  StartClock clock;
  clock.mark("program start");
  const Fd result = command.result_file ? open_file(*command.result_file, O_WRONLY | O_CREAT | O_TRUNC, 0666) : Fd{};
  Ending ending;
  try {
    ending = run_machine(command, clock);
  } catch (const HostError& error) {
    ending = {.kind = Ending::Kind::HostError, .detail = error.what()};
  }
  if (ending.kind == Ending::Kind::HostError) {
    say(ending.detail);
  } else if (!speaks_for_itself(ending)) {
    say(describe(ending));
  }
  if (result) {
    const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
    const auto json = to_json(ending, elapsed);
    if (::write(result.get(), json.data(), json.size()) != static_cast<ssize_t>(json.size())) {
      fail_errno(errno, "cannot write " + *command.result_file);
    }
  }
  return exit_code_of(ending);
}

}  // namespace martlet
