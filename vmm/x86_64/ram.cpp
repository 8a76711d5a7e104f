#include "vmm/x86_64/ram.h"

#include <algorithm>

#include "vmm/x86_64/layout.h"

namespace martlet {

std::vector<GuestRange> ram_ranges(std::uint64_t size) {
  const std::uint64_t low = std::min(size, raw(layout::kMmioHole.start));
  std::vector<GuestRange> ranges{{GuestAddr{0}, low}};
  if (size > low) {
    ranges.push_back({layout::kAbove4G, size - low});
  }
  return ranges;
}

}  // namespace martlet
