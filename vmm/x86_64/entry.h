#pragma once

#include "vmm/base/guest_memory.h"
#include "vmm/kvm/vcpu.h"

namespace martlet {

/// Puts the boot CPU at `entry` in 64-bit mode, its first 4 GiB identity-mapped, RSI = the zero page
/// (Linux, Documentation/x86/boot.rst, "64-bit Boot Protocol"). Writes page tables and GDT to `memory`.
void enter_linux64(const Vcpu& vcpu, const GuestMemory& memory, GuestAddr entry);

/// Puts the boot CPU at `entry` in 32-bit protected mode without paging, EBX = hvm_start_info
/// (Xen, docs/misc/pvh.pandoc). Writes the GDT to `memory`.
void enter_pvh(const Vcpu& vcpu, const GuestMemory& memory, GuestAddr entry);

}  // namespace martlet
