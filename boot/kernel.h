#pragma once

#include <asm/bootparam.h>

#include <cstdint>
#include <optional>
#include <string>

#include "vmm/base/guest_memory.h"

namespace martlet {

/// What state a kernel wants to be entered in.
enum class EntryMode {
  Linux64,  ///< Linux's 64-bit boot protocol: long mode, RSI = the zero page
  Pvh,      ///< PVH: 32-bit protected mode without paging, EBX = hvm_start_info
};

/// A kernel that lies in guest memory, and what it asks of its loader.
struct LoadedKernel {
  EntryMode mode = EntryMode::Linux64;
  GuestAddr entry{};                   ///< physical
  GuestRange footprint;                ///< RAM it needs for itself while it starts: nothing else goes there
  std::uint64_t max_command_line = 0;  ///< longest command line, without its NUL
  GuestAddr initrd_limit{};            ///< the initrd ends at or below this
  std::optional<setup_header> header;  ///< a bzImage's own, for the zero page
};

/// Loads a bzImage (64-bit boot protocol 2.12 or later) or an ELF64 vmlinux straight into guest memory.
/// Throws HostError that names the file when it is anything else, damaged, or needs more RAM.
[[nodiscard]] LoadedKernel load_kernel(const GuestMemory& memory, const std::string& path);

}  // namespace martlet
