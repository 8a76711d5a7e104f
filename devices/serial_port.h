#pragma once

#include <cstddef>
#include <span>

namespace martlet {

/// The host's side of a byte-wise port, as its device sees it. Called on vCPU threads.
class SerialHost {
 public:
  SerialHost() = default;
  SerialHost(const SerialHost&) = delete;
  SerialHost& operator=(const SerialHost&) = delete;
  virtual ~SerialHost() = default;

  /// One byte from the guest. Never waits for whoever reads it.
  virtual void put(std::byte byte) noexcept = 0;
  /// Input that was refused may be offered again.
  virtual void has_room() noexcept = 0;
};

/// The device's side, as the host sees it. Called on the event loop's thread.
class SerialDevice {
 public:
  /// How many bytes receive() would take now. After a 0, SerialHost::has_room() says when to ask again.
  [[nodiscard]] virtual std::size_t room() noexcept = 0;
  /// Hands `bytes` to the guest; returns how many were taken, the first ones. After less than all,
  /// SerialHost::has_room() says when to offer the rest.
  [[nodiscard]] virtual std::size_t receive(std::span<const std::byte> bytes) noexcept = 0;

 protected:
  ~SerialDevice() = default;
};

}  // namespace martlet
