#pragma once

#include <cstddef>
#include <span>

#include "vmm/base/ending.h"
#include "vmm/base/fd.h"
#include "vmm/kvm/brake.h"
#include "vmm/kvm/coalesced.h"
#include "vmm/kvm/exit.h"
#include "vmm/kvm/exit_recorder.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vm.h"

namespace martlet {

/// One vCPU. Only the thread that owns it calls run(); any other may only prepare it before that
/// thread starts, kick it while that thread runs, and look at it while it is at rest (see Brake).
class Vcpu {
 public:
  /// `index` is also the vCPU's APIC id.
  Vcpu(const KvmSystem& system, const Vm& vm, int index);
  Vcpu(Vcpu&&) = delete;
  Vcpu& operator=(Vcpu&&) = delete;
  ~Vcpu();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] int index() const noexcept { return index_; }
  [[nodiscard]] kvm_run& shared() noexcept { return *run_; }

  /// The run loop: enters the guest, serves its exits, enters again, until `stop` was requested or an
  /// exit ends the VM (which it then requests itself). `recorder`, if any, sees each exit.
  void run(Dispatcher& dispatcher, CoalescedWrites& coalesced, StopLine& stop,
           ExitRecorder* recorder = nullptr) noexcept;

  /// Makes KVM_RUN return as soon as it is entered again. Half of a kick: whoever kicks sets this, then
  /// signals the thread, and so cannot be lost between the thread's last look and its KVM_RUN.
  void set_immediate_exit() noexcept;

  /// Stops it between two instructions.
  [[nodiscard]] Brake& brake() noexcept { return brake_; }

 private:
  template <typename Watch>
  void loop(Dispatcher& dispatcher, CoalescedWrites& coalesced, StopLine& stop, Watch watch) noexcept;
  [[nodiscard]] Exit enter() noexcept;
  void attend(const Exit& exit, StopLine& stop) noexcept;

  int index_;
  Fd fd_;
  std::span<std::byte> mapping_;
  kvm_run* run_;
  Brake brake_;
};

}  // namespace martlet
