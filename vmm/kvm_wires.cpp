#include "vmm/kvm_wires.h"

#include <algorithm>
#include <iterator>

#include "vmm/base/error.h"
#include "vmm/x86_64/irq_routes.h"
#include "vmm/x86_64/layout.h"

namespace martlet {

void KvmMsiRouter::write_routes() {
  auto table = wired_routes();
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    const auto gsi = layout::kIoApicPins + static_cast<std::uint32_t>(i);
    table.push_back(msi_route(gsi, routes_[i].message.address, routes_[i].message.data));
  }
  vm_.set_routes(table);
}

void KvmMsiRouter::connect(const IrqLine& line, const MsiMessage& message) noexcept {
  const std::lock_guard lock{mutex_};
  try {
    auto route = std::ranges::find(routes_, &line, &Route::line);
    if (route == routes_.end()) {
      routes_.push_back({.line = &line, .message = message});
      route = std::prev(routes_.end());
      write_routes();
    } else if (route->message != message) {
      route->message = message;
      write_routes();
    }
    if (!route->connected) {
      // KVM looks at the eventfd at once: what was raised while masked is sent now.
      vm_.connect(line, layout::kIoApicPins + static_cast<std::uint32_t>(route - routes_.begin()));
      route->connected = true;
    }
  } catch (const HostError& error) {
    trouble_(error.what());
  }
}

void KvmMsiRouter::disconnect(const IrqLine& line) noexcept {
  const std::lock_guard lock{mutex_};
  const auto route = std::ranges::find(routes_, &line, &Route::line);
  if (route == routes_.end() || !route->connected) {
    return;
  }
  try {
    vm_.disconnect(line, layout::kIoApicPins + static_cast<std::uint32_t>(route - routes_.begin()));
    route->connected = false;
  } catch (const HostError& error) {
    trouble_(error.what());
  }
}

bool KvmDoorbells::try_add(const Vm::Doorbell& doorbell, int eventfd) noexcept {
  try {
    vm_.add_doorbell(doorbell, eventfd);
    return true;
  } catch (const HostError&) {  // the write comes as an exit, and works
    return false;
  }
}

void KvmDoorbells::take_away(const Vm::Doorbell& doorbell, int eventfd) noexcept {
  try {
    vm_.remove_doorbell(doorbell, eventfd);
  } catch (const HostError& error) {
    trouble_(error.what());
  }
}

bool KvmDoorbells::add(GuestAddr addr, int eventfd) noexcept { return try_add({.addr = raw(addr)}, eventfd); }
void KvmDoorbells::remove(GuestAddr addr, int eventfd) noexcept { take_away({.addr = raw(addr)}, eventfd); }

bool KvmDoorbells::add_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept {
  return try_add({.addr = raw(addr), .size = sizeof value, .value = value}, eventfd);
}
void KvmDoorbells::remove_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept {
  take_away({.addr = raw(addr), .size = sizeof value, .value = value}, eventfd);
}

}  // namespace martlet
