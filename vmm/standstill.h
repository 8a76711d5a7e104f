#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "vmm/base/event_loop.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vcpu_thread.h"

namespace martlet {

/// Brings all vCPUs of a running machine to rest and lets them go on, without ever waiting: the loop never waits for
/// a vCPU. All of it on the loop's thread.
class Standstill {
 public:
  struct Cpu {
    Vcpu* vcpu;
    VcpuThread* thread;
  };

  Standstill(EventLoop& loop, std::vector<Cpu> cpus);
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;
  ~Standstill();

  /// Stops all vCPUs; `reached` is called once, as soon as all rest. Asked again before that, both are called.
  void ask(std::function<void()> reached);
  /// Lets all go on.
  void release();
  /// Lets this one go on; the others rest.
  void release_one(std::size_t cpu);

  [[nodiscard]] bool reached() const;

  /// Called when a vCPU has come to rest by a debug exit, before it is asked for those of the others.
  void on_debug_exit(std::function<void(std::size_t cpu, const kvm_debug_exit_arch& exit)> handler);

 private:
  void came_to_rest(std::size_t cpu);

  EventLoop& loop_;
  std::vector<Cpu> cpus_;
  std::vector<std::function<void()>> waiting_;
  std::function<void(std::size_t, const kvm_debug_exit_arch&)> debugged_;
};

}  // namespace martlet
