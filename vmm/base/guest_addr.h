#pragma once

#include <cstdint>

namespace martlet {

/// A guest-physical address (GPA). Converts to and from integers only by name.
enum class GuestAddr : std::uint64_t {};

[[nodiscard]] constexpr std::uint64_t raw(GuestAddr addr) noexcept { return static_cast<std::uint64_t>(addr); }

/// Wraps like the hardware's adder; GuestMemory refuses what has wrapped.
[[nodiscard]] constexpr GuestAddr operator+(GuestAddr addr, std::uint64_t bytes) noexcept {
  return GuestAddr{raw(addr) + bytes};
}

[[nodiscard]] constexpr GuestAddr align_down(GuestAddr addr, std::uint64_t power_of_two) noexcept {
  return GuestAddr{raw(addr) & ~(power_of_two - 1)};
}

/// `size` bytes from `start`.
struct GuestRange {
  GuestAddr start{};
  std::uint64_t size = 0;

  [[nodiscard]] constexpr std::uint64_t end() const noexcept { return raw(start) + size; }
  [[nodiscard]] constexpr bool overlaps(const GuestRange& other) const noexcept {
    return raw(start) < other.end() && raw(other.start) < end();
  }
  [[nodiscard]] constexpr bool contains(const GuestRange& other) const noexcept {
    return raw(start) <= raw(other.start) && other.end() <= end() && raw(other.start) <= other.end();
  }
  friend constexpr bool operator==(const GuestRange&, const GuestRange&) noexcept = default;
};

}  // namespace martlet
