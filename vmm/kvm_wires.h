#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "devices/pci/msi.h"
#include "vmm/base/doorbell.h"
#include "vmm/kvm/vm.h"

namespace martlet {

/// Told when KVM refuses what a guest's set-up of its devices asks for: the VM cannot go on. Any thread.
using KvmTrouble = std::function<void(std::string_view what)>;

/// Message-signalled interrupts by irqfds and GSI routes. GSIs from layout::kIoApicPins on are ours.
class KvmMsiRouter final : public MsiRouter {
 public:
  KvmMsiRouter(Vm& vm, KvmTrouble trouble) : vm_{vm}, trouble_{std::move(trouble)} {}

  void connect(const IrqLine& line, const MsiMessage& message) noexcept override;
  void disconnect(const IrqLine& line) noexcept override;

 private:
  struct Route {
    const IrqLine* line = nullptr;
    MsiMessage message{};
    bool connected = false;
  };
  void write_routes();

  Vm& vm_;
  KvmTrouble trouble_;
  std::mutex mutex_;
  std::vector<Route> routes_;  // a line keeps its place, and with it its GSI
};

/// Doorbells by ioeventfds.
class KvmDoorbells final : public Doorbells {
 public:
  KvmDoorbells(Vm& vm, KvmTrouble trouble) : vm_{vm}, trouble_{std::move(trouble)} {}

  bool add(GuestAddr addr, int eventfd) noexcept override;
  void remove(GuestAddr addr, int eventfd) noexcept override;
  bool add_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept override;
  void remove_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept override;

 private:
  bool try_add(const Vm::Doorbell& doorbell, int eventfd) noexcept;
  void take_away(const Vm::Doorbell& doorbell, int eventfd) noexcept;

  Vm& vm_;
  KvmTrouble trouble_;
};

}  // namespace martlet
