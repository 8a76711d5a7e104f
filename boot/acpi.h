#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "boot/table.h"
#include "vmm/base/guest_memory.h"

namespace martlet {

/// The sleep type that means "off" (S5): what the guest writes to layout::kAcpiSleep shifted left by
/// two, with SLP_EN (bit 5) set (ACPI 6.5 §4.8.3.7).
inline constexpr std::uint8_t kAcpiSleepTypeOff = 5;

/// Bits of the byte at layout::kAcpiEvents. Reading it clears it.
enum class AcpiEvent : std::uint8_t { PowerButton = 1U << 0U };

struct AcpiConfig {
  std::uint32_t cpus = 1;            ///< their APIC ids are 0 to cpus - 1
  std::optional<GuestRange> ecam{};  ///< PCI configuration space from bus 0 on, 1 MiB a bus; none: no PCI
  std::size_t virtio_mmio = 0;       ///< devices, at layout::virtio_mmio(0) and after
};

/// The machine's ACPI tables: hardware-reduced (ACPI 6.5 §3.11.1), so no PM timer, SCI or FACS, and
/// Linux uses neither PIC nor PIT.
class AcpiTables {
 public:
  explicit AcpiTables(const AcpiConfig& config);

  /// Bytes of all tables but the RSDP, in whole pages.
  [[nodiscard]] std::uint64_t size() const noexcept;

  /// Writes the tables to `at`, a page in RAM below 4 GiB, and the RSDP, which points there, to layout::kRsdp.
  void write(const GuestMemory& memory, GuestAddr at) const;

 private:
  std::vector<Table> tables_;  // DSDT, then what the XSDT lists, but the FADT, which points to the DSDT
};

}  // namespace martlet
