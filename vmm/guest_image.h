#pragma once

#include "boot/kernel.h"
#include "vmm/base/guest_memory.h"
#include "vmm/config.h"
#include "vmm/start_clock.h"

namespace martlet {

/// Puts all that a guest finds in its memory there: kernel, initrd, command line, ACPI tables, MP table,
/// device tree, and the entry protocol's structures. Throws HostError.
[[nodiscard]] LoadedKernel load_guest(const GuestMemory& memory, const Config& config, StartClock& clock);

}  // namespace martlet
