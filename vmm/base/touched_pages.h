#pragma once

#include <functional>

#include "vmm/base/guest_addr.h"
#include "vmm/base/guest_memory.h"

namespace martlet {

/// Calls `visit` with each run of pages of guest RAM that were ever touched, by the guest or by us, ascending and
/// as long as they are, until it returns false. What lies between reads as zeros, and reading it would only make
/// the host map pages for it. A page that is swapped out counts as touched.
///
/// Asks the host's kernel (/proc/self/pagemap, or the memfd's holes); where it does not say, all of RAM is touched.
void visit_touched(const GuestMemory& memory, const std::function<bool(const GuestRange&)>& visit);

}  // namespace martlet
