#pragma once
// What capture files are made of: pcapng's blocks (draft-ietf-opsawg-pcapng), in this host's byte order.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/mac.h"

namespace martlet::pcapng {

/// Nanoseconds since 1970: the unit of every time here, as interface() declares.
using Time = std::uint64_t;
[[nodiscard]] Time now() noexcept;

/// §4.1, what a file begins with.
[[nodiscard]] std::vector<std::byte> section(std::string_view application);

struct Interface {
  std::string name{};
  std::optional<MacAddress> mac{};
};
/// §4.2, of an Ethernet interface whose frames are never cut off. Interfaces count from 0 as they come in the file.
[[nodiscard]] std::vector<std::byte> interface(const Interface& interface);

/// As the interface sees it (§4.3.1).
enum class Direction : std::uint32_t { Unknown = 0, Inbound = 1, Outbound = 2 };

struct Packet {
  Time time = 0;
  std::uint32_t size = 0;
  std::uint32_t interface = 0;
  Direction direction = Direction::Unknown;
  std::uint64_t lost = 0;  ///< frames that should have come before it
};
/// What an Enhanced Packet Block (§4.3) has before and after a frame's bytes.
class Envelope {
 public:
  explicit Envelope(const Packet& packet) noexcept;

  [[nodiscard]] std::span<const std::byte> head() const noexcept { return head_; }
  [[nodiscard]] std::span<const std::byte> tail() const noexcept { return std::span{tail_}.first(tail_size_); }

 private:
  std::array<std::byte, 28> head_{};
  std::array<std::byte, 31> tail_{};
  std::size_t tail_size_ = 0;
};

struct Counts {
  std::uint64_t seen = 0;
  std::uint64_t dropped = 0;  ///< of those seen
};
/// §4.6.
[[nodiscard]] std::vector<std::byte> statistics(std::uint32_t interface, const Counts& counts);

}  // namespace martlet::pcapng
