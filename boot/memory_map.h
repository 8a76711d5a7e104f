#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmm/base/guest_addr.h"

namespace martlet {

/// As e820 (ACPI 6.5 §15) and PVH count them.
enum class MemoryType : std::uint32_t { Ram = 1, Reserved = 2, AcpiReclaimable = 3 };

struct MemoryMapEntry {
  GuestRange range;
  MemoryType type = MemoryType::Ram;
  friend bool operator==(const MemoryMapEntry&, const MemoryMapEntry&) = default;
};

struct MemoryMapConfig {
  std::span<const GuestRange> ram;   ///< ascending and disjoint, the first from address 0
  std::optional<GuestRange> acpi{};  ///< where the ACPI tables lie in RAM, whole pages
  std::optional<GuestRange> ecam{};  ///< PCI configuration space, when the machine has it
};

/// What a kernel is told of its memory: ascending and disjoint. Firmware's share of the first MiB is
/// reserved, the ACPI tables can be reclaimed, device holes are left out.
[[nodiscard]] std::vector<MemoryMapEntry> make_memory_map(const MemoryMapConfig& config);

}  // namespace martlet
