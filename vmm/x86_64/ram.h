#pragma once

#include <cstdint>
#include <vector>

#include "vmm/base/guest_addr.h"

namespace martlet {

/// Where `size` bytes of RAM lie: up to 3 GiB from address 0, the rest above 4 GiB.
[[nodiscard]] std::vector<GuestRange> ram_ranges(std::uint64_t size);

}  // namespace martlet
