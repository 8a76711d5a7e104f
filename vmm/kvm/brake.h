#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "vmm/base/ending.h"
#include "vmm/base/fd.h"
#include "vmm/kvm/exit.h"

namespace martlet {

/// Holds one vCPU between two instructions, every exit of its finished, so that others may look at it and change it.
/// The vCPU comes to rest when its brake is pulled and it was kicked, or by itself at a debug exit or a fault, where
/// there is a debugger.
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
  /// The exit by which it came to rest by itself, if it did; asked once.
  [[nodiscard]] std::optional<Exit> take_exit() noexcept;
  /// Readable when it has come to rest since this was last read.
  [[nodiscard]] int fd() const noexcept { return rested_.get(); }

  // --- From the vCPU's own thread.
  /// Rests while the brake is pulled and nobody ended the VM.
  void rest(const StopLine& stop) noexcept;
  /// Pulls the brake by itself at an exit that would end the VM, if anybody is there to look into it.
  [[nodiscard]] bool pull_at(const Exit& exit) noexcept;

  /// Whether a debugger is there: it watches fd().
  void set_debugged(bool debugged) noexcept;

 private:
  mutable std::mutex mutex_;
  std::condition_variable released_;
  bool pulled_ = false;
  bool waiting_ = false;  // the vCPU's thread, in rest()
  bool debugged_ = false;
  std::optional<Exit> exit_;
  Fd rested_;
};

}  // namespace martlet
