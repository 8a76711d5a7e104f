#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/queue.h"

namespace martlet::virtio {

/// A message over the control queues, §5.3.6.2. A name or a size may follow.
struct ConsoleMessage {
  std::uint32_t port;
  std::uint16_t event;  ///< ConsoleEvent
  std::uint16_t value;
};
static_assert(sizeof(ConsoleMessage) == 8);

enum ConsoleEvent : std::uint16_t {
  kDeviceReady = 0,
  kPortAdd = 1,
  kPortRemove = 2,
  kPortReady = 3,
  kConsolePort = 4,
  kResize = 5,
  kPortOpen = 6,
  kPortName = 7,
};

struct ConsoleSize {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
  friend bool operator==(const ConsoleSize&, const ConsoleSize&) noexcept = default;
};
static_assert(sizeof(ConsoleSize) == 4);  // as it follows kResize

/// What device and driver of a console with several ports tell each other of them (§5.3.6.2, VIRTIO_CONSOLE_F_-
/// MULTIPORT). What there is to say is kept as one bit for each port and kind of message, not as a list: a
/// driver without buffers learns later how things are then, and nothing grows.
///
/// On the event loop's thread only.
class ConsoleControl final {
 public:
  /// Called when the guest opens a port or closes it.
  using Opened = std::function<void(std::size_t port, bool open)>;
  /// `names` of all ports; port 0's is not told, for it is the console.
  ConsoleControl(std::vector<std::string> names, Opened opened);

  // --- The host's side
  void set_connected(std::size_t port, bool connected) noexcept;
  void set_size(ConsoleSize size) noexcept;

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
    kConsole = 1U << 1U,
    kName = 1U << 2U,
    kSize = 1U << 3U,
    kClose = 1U << 4U,
    kOpen = 1U << 5U,
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
  std::optional<ConsoleSize> size_;
  Side receive_;
  Side transmit_;
  bool ready_ = false;
};

}  // namespace martlet::virtio
