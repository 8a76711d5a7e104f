#include "boot/memory_map.h"

#include <algorithm>

#include "vmm/x86_64/layout.h"

namespace martlet {

std::vector<MemoryMapEntry> make_memory_map(const MemoryMapConfig& config) {
  // From the EBDA up to 1 MiB there is RAM that firmware would use. Kernels look for tables there.
  constexpr GuestRange kFirmware{layout::kEbda.start, raw(layout::kHighMemory) - raw(layout::kEbda.start)};
  std::vector<MemoryMapEntry> carved{{kFirmware, MemoryType::Reserved}};
  if (config.acpi) {
    carved.push_back({*config.acpi, MemoryType::AcpiReclaimable});
  }

  std::vector<MemoryMapEntry> map;
  for (const auto& ram : config.ram) {
    auto from = raw(ram.start);
    const auto add_ram_up_to = [&](std::uint64_t end) {
      if (end > from) {
        map.push_back({{GuestAddr{from}, end - from}, MemoryType::Ram});
      }
    };
    for (const auto& entry : carved) {
      if (ram.overlaps(entry.range)) {
        add_ram_up_to(raw(entry.range.start));
        from = std::min(entry.range.end(), ram.end());
        map.push_back({{entry.range.start, from - raw(entry.range.start)}, entry.type});
      }
    }
    add_ram_up_to(ram.end());
  }
  if (config.ecam) {
    map.push_back({*config.ecam, MemoryType::Reserved});
  }
  std::ranges::sort(map, {}, [](const MemoryMapEntry& entry) { return entry.range.start; });
  return map;
}

}  // namespace martlet
