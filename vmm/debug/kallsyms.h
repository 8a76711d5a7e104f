#pragma once

#include "vmm/base/guest_memory.h"
#include "vmm/debug/symbols.h"
#include "vmm/debug/vmcoreinfo.h"

namespace martlet {

/// The symbols that a kernel of Linux 6.0 or later keeps of itself (CONFIG_KALLSYMS), read out of its memory: no
/// vmlinux, no offset needed. Empty when `info` does not say where they are, or they make no sense.
[[nodiscard]] Symbols read_kallsyms(const GuestMemory& memory, const VmCoreInfo& info);

}  // namespace martlet
