#include "boot/placement.h"

#include <algorithm>

#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

/// The part of `region` from `floor` up to `ceiling`, shrunk to whole pages.
GuestRange usable(const GuestRange& region, GuestAddr floor, GuestAddr ceiling) {
  const auto lowest = std::max({raw(region.start), raw(floor), raw(layout::kHighMemory)});
  const auto end = raw(align_down(GuestAddr{std::min(region.end(), raw(ceiling))}, kPageSize));
  if (lowest >= end) {  // before rounding up, which could wrap
    return {};
  }
  const auto start = align_up(lowest, kPageSize);
  return {GuestAddr{start}, end - start};
}

}  // namespace

GuestRange largest_gap(const GuestMemory& memory, GuestAddr floor, GuestAddr ceiling) noexcept {
  GuestRange largest{};
  for (const auto& region : memory.regions()) {
    const auto gap = usable(region.range, floor, ceiling);
    largest = gap.size > largest.size ? gap : largest;
  }
  return largest;
}

std::optional<GuestAddr> highest_place(const GuestMemory& memory, std::uint64_t size, GuestAddr floor,
                                       GuestAddr ceiling) noexcept {
  std::optional<GuestAddr> highest;  // regions ascend
  for (const auto& region : memory.regions()) {
    const auto gap = usable(region.range, floor, ceiling);
    if (size != 0 && gap.size >= size) {
      highest = align_down(GuestAddr{gap.end() - size}, kPageSize);
    }
  }
  return highest;
}

}  // namespace martlet
