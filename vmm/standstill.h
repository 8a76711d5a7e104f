#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "vmm/base/event_loop.h"
#include "vmm/kvm/vcpu.h"

namespace martlet {

/// Brings all vCPUs of a machine to rest and lets them go on, without ever waiting: the loop never waits for a vCPU.
/// All of it on the loop's thread.
class Standstill {
 public:
  /// `kick` makes a vCPU look at its brake.
  Standstill(EventLoop& loop, std::vector<Vcpu*> cpus, std::function<void(std::size_t cpu)> kick);
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;
  ~Standstill();

  [[nodiscard]] std::span<Vcpu* const> cpus() const noexcept { return cpus_; }

  /// Stops all vCPUs; `reached` is called once, as soon as all rest. Asked again before that, both are called.
  void ask(std::function<void()> reached);
  /// Lets all go on.
  void release();
  /// Lets this one go on; the others rest.
  void release_one(std::size_t cpu);
  [[nodiscard]] bool reached() const;

  /// A debugger is there: an exit that would end the VM, and any debug exit, only brings its vCPU to rest, and
  /// `handler` is called, before those who asked for a standstill. Null: it has left.
  void on_exit(std::function<void(std::size_t cpu, const Exit& exit)> handler);

 private:
  void came_to_rest(std::size_t cpu);

  EventLoop& loop_;
  std::vector<Vcpu*> cpus_;
  std::function<void(std::size_t)> kick_;
  std::vector<std::function<void()>> waiting_;
  std::function<void(std::size_t, const Exit&)> exited_;
};

}  // namespace martlet
