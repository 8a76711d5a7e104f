#pragma once
// What ACPI and MP tables have in common: packed structures one after the other, and a checksum.

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace martlet {

using Table = std::vector<std::byte>;

/// Adds the bytes of `part`.
template <class T>
  requires std::is_trivially_copyable_v<T>
void append(Table& table, const T& part) {
  const auto bytes = std::as_bytes(std::span{&part, 1});
  table.insert(table.end(), bytes.begin(), bytes.end());
}

/// What a checksum byte that is zero now must become, for the sum of all bytes to be zero.
[[nodiscard]] constexpr std::uint8_t checksum(std::span<const std::byte> table) noexcept {
  unsigned sum = 0;
  for (const auto byte : table) {
    sum += std::to_integer<unsigned>(byte);
  }
  return static_cast<std::uint8_t>(-sum);
}

}  // namespace martlet
