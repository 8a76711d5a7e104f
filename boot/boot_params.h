#pragma once

#include <optional>
#include <span>

#include "boot/kernel.h"
#include "boot/memory_map.h"

namespace martlet {

/// What a kernel finds out about its machine at entry, by whichever protocol.
struct BootInfo {
  std::span<const MemoryMapEntry> memory_map;
  GuestRange command_line;                ///< from write_command_line()
  std::optional<GuestRange> initrd{};     ///< from load_initrd()
  std::optional<GuestAddr> rsdp{};        ///< ACPI's root pointer; none: the kernel searches for it
  std::optional<GuestAddr> setup_data{};  ///< a setup_data record, from place_fdt() or load_fdt()
};

/// Writes Linux's zero page to layout::kZeroPage (Documentation/arch/x86/zero-page.rst).
void write_boot_params(const GuestMemory& memory, const LoadedKernel& kernel, const BootInfo& info);

}  // namespace martlet
