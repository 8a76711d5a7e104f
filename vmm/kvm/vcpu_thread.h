#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "vmm/kvm/vcpu.h"

namespace martlet {

/// The thread that owns a vCPU.
class VcpuThread {
 public:
  /// Starts `body` on a thread named after the vCPU. `vcpu` outlives this.
  VcpuThread(Vcpu& vcpu, std::function<void()> body);
  VcpuThread(VcpuThread&&) = delete;
  VcpuThread& operator=(VcpuThread&&) = delete;
  /// Waits for the thread: request the stop and kick first.
  ~VcpuThread();

  /// Makes the vCPU leave the guest and look around, wherever it is now. Never lost. From any thread.
  void kick() noexcept;

 private:
  Vcpu& vcpu_;
  std::thread thread_;
};

}  // namespace martlet
