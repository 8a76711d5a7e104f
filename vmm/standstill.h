#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "vmm/base/event_loop.h"
#include "vmm/kvm/brake.h"

namespace martlet {

/// Brings all vCPUs of a machine to rest and lets them go on, without ever waiting: the loop never waits for a vCPU.
/// All of it on the loop's thread.
///
/// A debugger holds vCPUs, some or all; who only looks stops the others for as long as he looks.
class Standstill {
 public:
  struct Hooks {
    std::function<void(std::size_t cpu)> kick;       ///< makes a vCPU look at its brake
    std::function<void(std::size_t cpu)> releasing;  ///< it is about to go on
  };

  /// One brake for each vCPU; they outlive it.
  Standstill(EventLoop& loop, const std::vector<Brake*>& brakes, Hooks hooks);
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;
  ~Standstill();

  /// Stops all vCPUs, calls `look` as soon as all rest, and lets those go on that nobody holds.
  void look(std::function<void()> look);
  /// Stops all vCPUs and holds each until release(); `reached` is called as soon as all rest, after whoever looks.
  void hold(std::function<void()> reached);
  /// Lets this one go on; the others stay as they are.
  void release(std::size_t cpu);

  /// Some vCPU is held, at rest or on its way there.
  [[nodiscard]] bool holds_any() const;
  /// All are held, and rest.
  [[nodiscard]] bool holds_all() const;

  /// A debugger is there: an exit that would end the VM, and any debug exit, only brings its vCPU to rest, and
  /// `handler` is called, before those who asked for a standstill: it may hold. Null: it has left.
  void on_exit(std::function<void(std::size_t cpu, const Exit& exit)> handler);

 private:
  struct Cpu {
    Brake* brake = nullptr;
    bool held = false;
  };
  void stop_all();
  void settle();
  bool serve();
  [[nodiscard]] bool all_rest() const;
  void take_exits();
  void let_go(std::size_t cpu);

  EventLoop& loop_;
  std::vector<Cpu> cpus_;
  Hooks hooks_;
  std::vector<std::function<void()>> lookers_;
  std::vector<std::function<void()>> holders_;
  std::function<void(std::size_t, const Exit&)> exited_;
  bool settling_ = false;
};

}  // namespace martlet
