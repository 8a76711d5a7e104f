#pragma once

#include <cstdint>
#include <optional>

#include "vmm/base/guest_memory.h"

namespace martlet {

inline constexpr std::uint64_t kPageSize = 4096;

/// `value` rounded up to a multiple of `power_of_two`; `value` is a size, far from the end of 64 bits.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t power_of_two) noexcept {
  return (value + power_of_two - 1) & ~(power_of_two - 1);
}

/// The longest stretch of RAM from `floor` up to `ceiling` in whole pages, never below 1 MiB. Empty when there is none.
[[nodiscard]] GuestRange largest_gap(const GuestMemory& memory, GuestAddr floor, GuestAddr ceiling) noexcept;

/// The highest page from which `size` bytes of RAM follow, all of them from `floor` (and 1 MiB) up to `ceiling`.
[[nodiscard]] std::optional<GuestAddr> highest_place(const GuestMemory& memory, std::uint64_t size, GuestAddr floor,
                                                     GuestAddr ceiling) noexcept;

}  // namespace martlet
