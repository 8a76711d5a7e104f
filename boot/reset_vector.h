#pragma once

#include "vmm/base/guest_memory.h"

namespace martlet {

/// Writes real-mode code to layout::kResetVector that resets the machine: what a guest gets that
/// reboots by jumping to its BIOS.
///
/// Linux does, in panics and `reboot -f`: it takes hardware-reduced ACPI for a sign of EFI, finds no EFI
/// to ask, and tries the BIOS before the ACPI reset register (arch/x86/kernel/reboot.c).
void write_reset_vector(const GuestMemory& memory);

}  // namespace martlet
