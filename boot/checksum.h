#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace martlet {

/// What makes the sum of all bytes of `table` zero, added to a byte that is zero now. Firmware tables
/// (ACPI, MP) are checked so.
[[nodiscard]] constexpr std::uint8_t checksum(std::span<const std::byte> table) noexcept {
  unsigned sum = 0;
  for (const auto byte : table) {
    sum += std::to_integer<unsigned>(byte);
  }
  return static_cast<std::uint8_t>(-sum);
}

}  // namespace martlet
