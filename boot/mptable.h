#pragma once

#include <cstdint>

#include "vmm/base/guest_memory.h"

namespace martlet {

/// The most CPUs an MP table can list: ids of 8 bits, 255 meaning everyone.
inline constexpr std::uint32_t kMaxMpTableCpus = 255;

struct MpTableConfig {
  std::uint32_t cpus = 1;  ///< their APIC ids are 0 to cpus - 1
  bool pci = false;        ///< a PCI bus 0, interrupts wired as layout::kPciIrqs says
};

/// Writes an MP table (Intel MultiProcessor Specification 1.4) for kernels without ACPI: its floating
/// pointer to layout::kEbda, its configuration to layout::kMpTable. With more than kMaxMpTableCpus it
/// lists the first of them: such a kernel cannot start the rest.
void write_mp_table(const GuestMemory& memory, const MpTableConfig& config);

}  // namespace martlet
