#pragma once

#include <cstdint>

#include "vmm/base/guest_addr.h"

namespace martlet {

/// Turns guest writes into signals on eventfds without an exit to user space. Whoever builds the machine
/// does it with KVM's ioeventfds; a test only remembers. Any thread.
class Doorbells {
 public:
  /// Writes of any size to `addr`, of any value, signal `eventfd` from now on. False when the host refuses.
  virtual bool add(GuestAddr addr, int eventfd) noexcept = 0;
  virtual void remove(GuestAddr addr, int eventfd) noexcept = 0;

  /// The same for 32-bit writes of exactly `value`.
  virtual bool add_value(GuestAddr /*addr*/, std::uint32_t /*value*/, int /*eventfd*/) noexcept { return false; }
  virtual void remove_value(GuestAddr /*addr*/, std::uint32_t /*value*/, int /*eventfd*/) noexcept {}

 protected:
  ~Doorbells() = default;
};

}  // namespace martlet
