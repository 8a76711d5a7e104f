#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "vmm/base/event_loop.h"
#include "vmm/debug/vcpu_activity.h"
#include "vmm/machine.h"

namespace martlet {

/// Looks at what a machine's vCPUs do: when its consoles have been silent for long, or when asked. On the loop's
/// thread.
class HangWatch {
 public:
  using Told = std::function<void(const MachineActivity&)>;

  explicit HangWatch(Machine& machine);

  /// From now on: `hangs` is told when the consoles were silent for `silence` and the machine will never speak again.
  void watch(std::chrono::milliseconds silence, Told hangs);
  /// A console spoke.
  void heard() noexcept { heard_ = Clock::now(); }
  /// Looks a few times, which takes a moment, then tells.
  void look(Told told);

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] Clock::time_point due() const;
  void silent();
  void take_sample();

  Machine& machine_;
  Timer silence_;
  Timer sampling_;
  std::chrono::milliseconds limit_{};
  Told hangs_;
  Clock::time_point heard_ = Clock::now();
  Clock::time_point looked_{};  // when last, for a hang
  std::vector<Told> told_;      // who waits for the samples
  std::vector<std::vector<VcpuSample>> samples_;
};

}  // namespace martlet
