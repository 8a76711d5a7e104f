#include "acpi.h"

#include "uart.h"

namespace guest {
namespace {

// Tables are byte-packed: what is wider than a byte is put together from bytes.
template <class T>
T field(const void* table, u64 offset) {
  T value;
  __builtin_memcpy(&value, static_cast<const u8*>(table) + offset, sizeof value);
  return value;
}

bool sums_to_zero(const void* table, u64 size) {
  u8 sum = 0;
  for (u64 i = 0; i < size; ++i) {
    sum = static_cast<u8>(sum + field<u8>(table, i));
  }
  return sum == 0;
}

bool same(const void* a, const char* b, u64 size) { return __builtin_memcmp(a, b, size) == 0; }

const AcpiHeader* checked(u64 address) {
  const auto* const table = reinterpret_cast<const AcpiHeader*>(address);
  if (sums_to_zero(table, table->length)) {
    return table;
  }
  print("FAILED: ACPI table at ", Hex{address}, ": wrong checksum\n");
  return nullptr;
}

AcpiRegister register_at(const void* table, u64 offset) {
  return {.space = field<u8>(table, offset), .address = field<u64>(table, offset + 4)};
}

// ACPI 6.5, sections 5.2.12.2, .3, .5 and .12: types of MADT entries.
enum MadtType : u8 { kMadtLocalApic = 0, kMadtIoApic = 1, kMadtOverride = 2, kMadtLocalX2Apic = 9 };
constexpr u64 kMadtEntries = 44;
constexpr u32 kMadtEnabled = 1;

template <class Visitor>
void for_each_madt_entry(const HvmStartInfo& info, Visitor visit) {
  const auto* const madt = find_table(info, "APIC");
  if (madt == nullptr) {
    return;
  }
  for (u64 at = kMadtEntries; at + 2 <= madt->length;) {
    const auto* const entry = reinterpret_cast<const u8*>(madt) + at;
    if (entry[1] < 2) {
      print("FAILED: MADT entry of length ", u32{entry[1]}, "\n");
      return;
    }
    visit(entry);
    at += entry[1];
  }
}

// Section 5.2.9: offsets into the FADT.
enum FadtField : u64 {
  kFadtDsdt = 40,
  kFadtPm1aControl = 64,
  kFadtFlags = 112,
  kFadtResetRegister = 116,
  kFadtResetValue = 128,
  kFadtXDsdt = 140,
  kFadtSleepControl = 244,
};
constexpr u32 kResetSupported = 1U << 10U;
constexpr u32 kHardwareReduced = 1U << 20U;

const AcpiHeader* find_dsdt(const AcpiHeader* fadt) {
  u64 address = fadt->length >= kFadtXDsdt + 8 ? field<u64>(fadt, kFadtXDsdt) : 0;
  if (address == 0) {
    address = field<u32>(fadt, kFadtDsdt);
  }
  return checked(address);
}

/// The first number in \_S5's package: Name(_S5, Package(){…}) as AML (chapter 20). -1 when there is none.
int soft_off_value(const AcpiHeader* dsdt) {
  constexpr u8 kNameOp = 0x08;
  constexpr u8 kPackageOp = 0x12;
  constexpr u8 kBytePrefix = 0x0a;
  const auto* const aml = reinterpret_cast<const u8*>(dsdt);
  for (u64 i = sizeof(AcpiHeader) + 2; i + 8 < dsdt->length; ++i) {
    if (!same(aml + i, "_S5_", 4) || (aml[i - 1] != kNameOp && (aml[i - 1] != '\\' || aml[i - 2] != kNameOp)) ||
        aml[i + 4] != kPackageOp) {
      continue;
    }
    u64 at = i + 5;
    at += 1 + (aml[at] >> 6U);  // PkgLength: its top bits count the bytes that follow
    at += 1;                    // NumElements
    if (aml[at] == kBytePrefix) {
      ++at;
    }
    return aml[at];  // also ZeroOp and OneOp are their own values
  }
  return -1;
}

}  // namespace

void AcpiRegister::write8(u8 value) const {
  space == 1 ? out8(static_cast<u16>(address), value) : mmio_write<u8>(address, value);
}
void AcpiRegister::write16(u16 value) const {
  space == 1 ? out16(static_cast<u16>(address), value) : mmio_write<u16>(address, value);
}

const AcpiHeader* find_table(const HvmStartInfo& info, const char* signature) {
  constexpr u64 kRsdpSize = 20;
  constexpr u64 kExtendedRsdpSize = 36;
  const auto* const rsdp = reinterpret_cast<const u8*>(info.rsdp);
  if (rsdp == nullptr || !same(rsdp, "RSD PTR ", 8) || !sums_to_zero(rsdp, kRsdpSize)) {
    print("FAILED: no ACPI root pointer\n");
    return nullptr;
  }
  const bool extended = rsdp[15] >= 2 && sums_to_zero(rsdp, kExtendedRsdpSize);
  const auto* const root = checked(extended ? field<u64>(rsdp, 24) : field<u32>(rsdp, 16));
  if (root == nullptr) {
    return nullptr;
  }
  const u64 step = extended ? 8 : 4;
  for (u64 at = sizeof(AcpiHeader); at + step <= root->length; at += step) {
    const u64 address = extended ? field<u64>(root, at) : field<u32>(root, at);
    if (same(reinterpret_cast<const void*>(address), signature, 4)) {
      return checked(address);
    }
  }
  return nullptr;
}

void find_cpus(const HvmStartInfo& info, AcpiCpus& cpus) {
  for_each_madt_entry(info, [&cpus](const u8* entry) {
    const bool x2 = entry[0] == kMadtLocalX2Apic;
    if (!x2 && entry[0] != kMadtLocalApic) {
      return;
    }
    const u32 id = x2 ? field<u32>(entry, 4) : entry[3];
    const u32 flags = x2 ? field<u32>(entry, 8) : field<u32>(entry, 4);
    if ((flags & kMadtEnabled) != 0 && cpus.count < kMostCpus) {
      cpus.ids[cpus.count++] = id;
    }
  });
}

u32 gsi_of_isa(const HvmStartInfo& info, u8 irq) {
  u32 gsi = irq;
  for_each_madt_entry(info, [&](const u8* entry) {
    if (entry[0] == kMadtOverride && entry[3] == irq) {
      gsi = field<u32>(entry, 4);
    }
  });
  return gsi;
}

u64 io_apic_address(const HvmStartInfo& info) {
  u64 address = 0;
  for_each_madt_entry(info, [&](const u8* entry) {
    if (entry[0] == kMadtIoApic && address == 0) {
      address = field<u32>(entry, 4);
    }
  });
  return address;
}

bool acpi_reset(const HvmStartInfo& info) {
  const auto* const fadt = find_table(info, "FACP");
  if (fadt == nullptr || (field<u32>(fadt, kFadtFlags) & kResetSupported) == 0) {
    return false;
  }
  register_at(fadt, kFadtResetRegister).write8(field<u8>(fadt, kFadtResetValue));
  return true;
}

bool acpi_power_off(const HvmStartInfo& info) {
  const auto* const fadt = find_table(info, "FACP");
  const auto* const dsdt = fadt != nullptr ? find_dsdt(fadt) : nullptr;
  const int type = dsdt != nullptr ? soft_off_value(dsdt) : -1;
  if (type < 0) {
    return false;
  }
  if ((field<u32>(fadt, kFadtFlags) & kHardwareReduced) != 0) {
    constexpr u32 kSleepEnable = 0x20;  // table 4.27
    register_at(fadt, kFadtSleepControl).write8(static_cast<u8>((static_cast<u32>(type) << 2U) | kSleepEnable));
  } else {
    constexpr u32 kSleepEnable = 1U << 13U;  // section 4.8.3.2.1
    out16(static_cast<u16>(field<u32>(fadt, kFadtPm1aControl)),
          static_cast<u16>((static_cast<u32>(type) << 10U) | kSleepEnable));
  }
  return true;
}

}  // namespace guest
