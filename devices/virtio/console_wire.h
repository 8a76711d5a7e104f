#pragma once

#include <cstdint>

namespace martlet::virtio {

/// A message over the control queues, virtio 1.2 §5.3.6.2. A name may follow.
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

/// The configuration space, §5.3.4.
struct ConsoleConfig {
  ConsoleSize size{};
  std::uint32_t max_ports = 0;
  std::uint32_t emergency_write = 0;
};
static_assert(sizeof(ConsoleConfig) == 12);

// Feature bits, §5.3.3.
inline constexpr std::uint64_t kConsoleSize = 1U << 0U;
inline constexpr std::uint64_t kConsoleMultiport = 1U << 1U;
inline constexpr std::uint64_t kConsoleEmergencyWrite = 1U << 2U;

}  // namespace martlet::virtio
