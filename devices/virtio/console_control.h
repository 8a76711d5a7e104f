#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/console_wire.h"
#include "devices/virtio/queue.h"

namespace martlet::virtio {

/// What device and driver tell each other of named ports (virtio 1.2 §5.3.6.2, VIRTIO_CONSOLE_F_MULTIPORT). What there
/// is to say is kept as one bit for each port and kind of message, not as a list: a driver without buffers learns later
/// how things are then, and nothing grows.
///
/// On the event loop's thread only.
class ConsoleControl final {
 public:
  /// Called when the guest opens a port or closes it.
  using Opened = std::function<void(std::size_t port, bool open)>;
  ConsoleControl(std::vector<std::string> names, Opened opened);

  // --- The host's side
  void set_connected(std::size_t port, bool connected) noexcept;

  // --- The guest's side
  void start_receive(std::unique_ptr<VirtQueue> queue, int kick) noexcept;
  void start_transmit(std::unique_ptr<VirtQueue> queue, int kick) noexcept;
  void receive_kicked() noexcept { send(); }
  void transmit_kicked() noexcept;
  void stop_receive() noexcept { receive_ = {}; }
  void stop_transmit() noexcept { transmit_ = {}; }
  /// Forgets what the driver said, as at a reset.
  void reset() noexcept;

 private:
  // In the order in which they are sent. A client that left and another that came are two messages.
  enum Pending : unsigned {
    kAdd = 1U << 0U,
    kName = 1U << 1U,
    kClose = 1U << 2U,
    kOpen = 1U << 3U,
  };
  struct Port {
    std::string name{};
    bool connected = false;
    bool ready = false;  // the driver knows it
    unsigned pending = 0;
  };
  struct Side {
    std::unique_ptr<VirtQueue> queue;
    int kick = -1;
  };
  /// As it goes into the driver's buffer.
  struct Packet {
    std::array<std::byte, 128> bytes{};
    std::size_t size = 0;

    void append(std::span<const std::byte> more) noexcept;
  };

  void obey(const ConsoleMessage& message) noexcept;
  void port_ready(Port& port) noexcept;
  void send() noexcept;
  [[nodiscard]] Port* speaker() noexcept;
  [[nodiscard]] Packet next_packet(const Port& port) const noexcept;

  std::vector<Port> ports_;
  Opened opened_;
  Side receive_;
  Side transmit_;
  bool ready_ = false;
};

}  // namespace martlet::virtio
