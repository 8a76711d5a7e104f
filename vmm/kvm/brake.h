#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "vmm/base/ending.h"
#include "vmm/base/fd.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// Holds one vCPU between two instructions, every exit of its finished, so that others may look at it and change it.
/// The vCPU comes to rest when its brake is pulled and it was kicked, or by itself at a debug exit.
class Brake {
 public:
  Brake() : rested_{make_eventfd()} {}

  // --- From any thread.
  /// The vCPU rests from its next kick on; kick it then.
  void pull() noexcept;
  /// It goes on. Safe to call when it never stopped.
  void release() noexcept;
  /// Until release(), its file descriptor is whoever's who pulled the brake.
  [[nodiscard]] bool at_rest() const noexcept;
  /// The debug exit by which it came to rest, if it did; asked once.
  [[nodiscard]] std::optional<kvm_debug_exit_arch> take_debug_exit() noexcept;
  /// Readable when it has come to rest since this was last read.
  [[nodiscard]] int fd() const noexcept { return rested_.get(); }

  // --- From the vCPU's own thread.
  /// Rests while the brake is pulled and nobody ended the VM.
  void rest(const StopLine& stop) noexcept;
  /// Pulls the brake by itself, if anybody is there to release it.
  [[nodiscard]] bool pull_at(const kvm_debug_exit_arch& exit) noexcept;

  /// Whether debug exits are expected: somebody watches fd().
  void expect_debug_exits(bool expected) noexcept;

 private:
  mutable std::mutex mutex_;
  std::condition_variable released_;
  bool pulled_ = false;
  bool waiting_ = false;  // the vCPU's thread, in rest()
  bool debugged_ = false;
  std::optional<kvm_debug_exit_arch> debug_exit_;
  Fd rested_;
};

}  // namespace martlet
