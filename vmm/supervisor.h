#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>

#include "vmm/base/event_loop.h"
#include "vmm/cli.h"
#include "vmm/debug/judge.h"
#include "vmm/hang_watch.h"
#include "vmm/machine.h"

namespace martlet {

/// Ends a running machine when the command line says so: by time, or by what its consoles have said. On the loop's
/// thread.
class Supervisor {
 public:
  using Time = std::chrono::steady_clock::time_point;

  Supervisor(Machine& machine, Judge& judge, const RunCommand& command, Time start);

  /// A console's output.
  void hear(ConsoleName console, std::span<const std::byte> output);

 private:
  [[nodiscard]] std::chrono::milliseconds elapsed() const;
  void time_out();

  Machine& machine_;
  Judge& judge_;
  const RunCommand& command_;
  Time start_;
  HangWatch hang_watch_;
  Timer timeout_;
  bool timed_out_ = false;
  Timer failed_;  // runs while the console has more to say about a failure
  std::optional<Time> patient_until_;
};

}  // namespace martlet
