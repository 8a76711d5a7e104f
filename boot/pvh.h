#pragma once

#include "boot/boot_params.h"

namespace martlet {

/// Writes hvm_start_info with its module list and memory map to layout::kPvhStartInfo
/// (Xen, public/arch-x86/hvm/start_info.h, version 1). PVH has no setup_data, so no device tree:
/// throws HostError when `info` holds one.
void write_pvh_start_info(const GuestMemory& memory, const BootInfo& info);

}  // namespace martlet
