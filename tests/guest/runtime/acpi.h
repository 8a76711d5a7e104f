#pragma once
// As much ACPI as a guest needs to find its CPUs, its interrupt wiring, its reset and its off switch.

#include "pvh.h"

namespace guest {

struct AcpiHeader {
  char signature[4];
  u32 length;
  u8 revision;
  u8 checksum;
  char oem[26];
};
static_assert(sizeof(AcpiHeader) == 36);

/// A generic address (ACPI 6.5, section 5.2.3.2), one byte wide.
struct AcpiRegister {
  u8 space = 0;  // 0: memory, 1: ports
  u64 address = 0;

  void write8(u8 value) const;
  void write16(u16 value) const;
};

/// The table with this signature, or nullptr. A wrong checksum on the way is printed, and nothing found.
const AcpiHeader* find_table(const HvmStartInfo& info, const char* signature);

inline constexpr u32 kMostCpus = 512;

struct AcpiCpus {
  u32 count = 0;
  u32 ids[kMostCpus] = {};
};
/// Enabled processors of the MADT, in its order; by address, for it is large.
void find_cpus(const HvmStartInfo& info, AcpiCpus& cpus);
/// The global system interrupt that an ISA interrupt leads to, by the MADT's overrides.
u32 gsi_of_isa(const HvmStartInfo& info, u8 irq);
/// Physical address of the first IO-APIC.
u64 io_apic_address(const HvmStartInfo& info);

/// The FADT's reset register with its value. False when there is none.
bool acpi_reset(const HvmStartInfo& info);
/// Soft-off: \_S5's value into the sleep control register, or into PM1a on a machine that is not
/// hardware-reduced. False when ACPI does not say how.
bool acpi_power_off(const HvmStartInfo& info);

}  // namespace guest
