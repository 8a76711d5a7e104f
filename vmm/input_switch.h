#pragma once

#include <cstddef>
#include <span>

#include "devices/serial_port.h"
#include "devices/virtio/console_port.h"

namespace martlet {

/// Hands what is typed to whichever console the guest listens at: hvc0 once it has opened it, the serial
/// port until then and after. On the event loop's thread.
class InputSwitch final : public SerialDevice {
 public:
  InputSwitch(virtio::ConsolePort& hvc, SerialDevice& serial) : hvc_{hvc}, serial_{serial} {}

  [[nodiscard]] std::size_t room() noexcept override { return listener().room(); }
  [[nodiscard]] std::size_t receive(std::span<const std::byte> bytes) noexcept override {
    return listener().receive(bytes);
  }

 private:
  [[nodiscard]] SerialDevice& listener() noexcept { return hvc_.open() ? hvc_ : serial_; }

  virtio::ConsolePort& hvc_;
  SerialDevice& serial_;
};

}  // namespace martlet
