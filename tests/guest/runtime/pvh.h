#pragma once
// What a guest is handed at entry: Xen, public/arch-x86/hvm/start_info.h.

#include "io.h"

namespace guest {

inline constexpr u32 kStartMagic = 0x336ec578;

struct MemoryMapEntry {
  u64 start;
  u64 size;
  u32 type;
  u32 reserved;
};
inline constexpr u32 kRam = 1;

struct HvmStartInfo {
  u32 magic;
  u32 version;
  u32 flags;
  u32 module_count;
  u64 modules;
  u64 command_line;
  u64 rsdp;
  u64 memory_map;
  u32 memory_map_count;
  u32 reserved;

  [[nodiscard]] const MemoryMapEntry* begin() const { return reinterpret_cast<const MemoryMapEntry*>(memory_map); }
  [[nodiscard]] const MemoryMapEntry* end() const { return begin() + memory_map_count; }
};
static_assert(sizeof(HvmStartInfo) == 56 && sizeof(MemoryMapEntry) == 24);

}  // namespace guest

/// Each guest's own: runs with interrupts off, the UART set up and exceptions reported. Returns the exit code.
int guest_main(const guest::HvmStartInfo& info);
