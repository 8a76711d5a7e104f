#include "boot/acpi.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "boot/dsdt.h"
#include "boot/placement.h"
#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

using Signature = std::array<char, 4>;
constexpr std::array<char, 6> kOemId{'M', 'A', 'R', 'T', 'L', 'T'};
constexpr std::array<char, 8> kOemTableId{'M', 'A', 'R', 'T', 'L', 'E', 'T', ' '};
constexpr Signature kCreatorId{'M', 'R', 'T', 'L'};

#pragma pack(push, 1)

struct TableHeader {  // ACPI 6.5 §5.2.6
  Signature signature{};
  std::uint32_t length = 0;
  std::uint8_t revision = 0;
  std::uint8_t checksum = 0;
  std::array<char, 6> oem_id = kOemId;
  std::array<char, 8> oem_table_id = kOemTableId;
  std::uint32_t oem_revision = 1;
  Signature creator_id = kCreatorId;
  std::uint32_t creator_revision = 1;
};
static_assert(sizeof(TableHeader) == 36);

struct Rsdp {  // §5.2.5.3
  std::array<char, 8> signature{'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};
  std::uint8_t checksum = 0;  // of the first 20 bytes, all that ACPI 1.0 had
  std::array<char, 6> oem_id = kOemId;
  std::uint8_t revision = 2;
  std::uint32_t rsdt = 0;
  std::uint32_t length = 36;
  std::uint64_t xsdt = 0;
  std::uint8_t extended_checksum = 0;
  std::array<std::uint8_t, 3> reserved{};
};
static_assert(sizeof(Rsdp) == 36 && offsetof(Rsdp, length) == 20);

struct GenericAddress {  // §5.2.3.2
  std::uint8_t space = 0;
  std::uint8_t bits = 0;
  std::uint8_t bit_offset = 0;
  std::uint8_t access = 0;
  std::uint64_t address = 0;
};
static_assert(sizeof(GenericAddress) == 12);

/// A byte-wide register in port space.
constexpr GenericAddress port_register(std::uint16_t port) {
  constexpr std::uint8_t kSystemIo = 1;
  constexpr std::uint8_t kByteAccess = 1;
  return {.space = kSystemIo, .bits = 8, .access = kByteAccess, .address = port};
}

enum FadtFlag : std::uint32_t {  // §5.2.9, table 5.10
  kWbinvd = 1U << 0U,
  kProcC1 = 1U << 2U,
  kPowerButtonIsDevice = 1U << 4U,
  kSleepButtonAbsent = 1U << 5U,
  kResetRegister = 1U << 10U,
  kHardwareReduced = 1U << 20U,
};
enum BootFlag : std::uint16_t {  // §5.2.9.3; the 8042 bit stays clear, so that no one waits for a keyboard
  kLegacyDevices = 1U << 0U,
  kNoVga = 1U << 2U,
};

struct Fadt {  // §5.2.9; in a hardware-reduced machine all the rest is zero
  TableHeader header{.signature{'F', 'A', 'C', 'P'}, .revision = 6};
  std::array<std::uint8_t, 73> fixed_hardware{};
  std::uint16_t boot_flags = kLegacyDevices | kNoVga;
  std::uint8_t reserved = 0;
  std::uint32_t flags =
      kWbinvd | kProcC1 | kPowerButtonIsDevice | kSleepButtonAbsent | kResetRegister | kHardwareReduced;
  GenericAddress reset_register = port_register(layout::kAcpiReset.start);
  std::uint8_t reset_value = 1;
  std::uint16_t arm_boot_flags = 0;
  std::uint8_t minor_revision = 5;
  std::uint64_t facs = 0;
  std::uint64_t dsdt = 0;
  std::array<GenericAddress, 8> fixed_registers{};
  GenericAddress sleep_control = port_register(layout::kAcpiSleep.start);
  GenericAddress sleep_status = port_register(layout::kAcpiSleep.start + 1);
  std::uint64_t hypervisor = 0;
};
static_assert(sizeof(Fadt) == 276 && offsetof(Fadt, boot_flags) == 109 && offsetof(Fadt, reset_register) == 116 &&
              offsetof(Fadt, dsdt) == 140 && offsetof(Fadt, sleep_control) == 244);

struct Madt {  // §5.2.12
  TableHeader header{.signature{'A', 'P', 'I', 'C'}, .revision = 6};
  std::uint32_t local_apic = static_cast<std::uint32_t>(raw(layout::kLocalApic.start));
  std::uint32_t flags = 1;  // PCAT_COMPAT: there is a pair of 8259s
};
static_assert(sizeof(Madt) == 44);

struct LocalApic {  // §5.2.12.2
  std::uint8_t type = 0;
  std::uint8_t length = 8;
  std::uint8_t uid = 0;
  std::uint8_t apic_id = 0;
  std::uint32_t flags = 1;  // enabled
};
static_assert(sizeof(LocalApic) == 8);

struct LocalX2Apic {  // §5.2.12.12
  std::uint8_t type = 9;
  std::uint8_t length = 16;
  std::uint16_t reserved = 0;
  std::uint32_t x2apic_id = 0;
  std::uint32_t flags = 1;  // enabled
  std::uint32_t uid = 0;
};
static_assert(sizeof(LocalX2Apic) == 16);

struct IoApic {  // §5.2.12.3
  std::uint8_t type = 1;
  std::uint8_t length = 12;
  std::uint8_t id = 0;  // what KVM's register says after reset
  std::uint8_t reserved = 0;
  std::uint32_t address = static_cast<std::uint32_t>(raw(layout::kIoApic.start));
  std::uint32_t first_gsi = 0;
};
static_assert(sizeof(IoApic) == 12);

struct LocalApicNmi {  // §5.2.12.7
  std::uint8_t type = 4;
  std::uint8_t length = 6;
  std::uint8_t uid = 0xff;  // all CPUs
  std::uint16_t flags = 0;  // as the bus has it
  std::uint8_t lint = 1;
};
static_assert(sizeof(LocalApicNmi) == 6);

struct LocalX2ApicNmi {  // §5.2.12.13
  std::uint8_t type = 0x0a;
  std::uint8_t length = 12;
  std::uint16_t flags = 0;
  std::uint32_t uid = 0xffffffff;  // all CPUs
  std::uint8_t lint = 1;
  std::array<std::uint8_t, 3> reserved{};
};
static_assert(sizeof(LocalX2ApicNmi) == 12);

struct Mcfg {  // PCI Firmware Specification 3.3 §4.1.2
  TableHeader header{.signature{'M', 'C', 'F', 'G'}, .revision = 1};
  std::uint64_t reserved = 0;
  std::uint64_t base = 0;
  std::uint16_t segment = 0;
  std::uint8_t first_bus = 0;
  std::uint8_t last_bus = 0;
  std::uint32_t reserved_too = 0;
};
static_assert(sizeof(Mcfg) == 60);

#pragma pack(pop)

constexpr std::uint32_t kFirstX2ApicId = 255;  // an 8-bit id of 255 means everyone
constexpr std::uint64_t kTableAlignment = 16;

/// `table` with the length and the checksum in its header made true.
Table seal(Table table) {
  TableHeader header;
  std::memcpy(&header, table.data(), sizeof header);
  header.length = static_cast<std::uint32_t>(table.size());
  header.checksum = 0;
  std::memcpy(table.data(), &header, sizeof header);
  table[offsetof(TableHeader, checksum)] = std::byte{checksum(table)};
  return table;
}

template <class T>
Table seal_one(const T& part) {
  Table table;
  append(table, part);
  return seal(std::move(table));
}

Table make_dsdt(const AcpiConfig& config) {
  Table table;
  append(table, TableHeader{.signature{'D', 'S', 'D', 'T'}, .revision = 2});  // 2: 64-bit integers
  std::ranges::transform(dsdt_terms(config), std::back_inserter(table), [](std::uint8_t b) { return std::byte{b}; });
  return seal(std::move(table));
}

/// Interrupts need no overrides: ISA interrupts are edge-triggered, active high, and KVM's own routing
/// connects each of them, the PIT's IRQ 0 too, to the pin of its number.
Table make_madt(const AcpiConfig& config) {
  Table table;
  append(table, Madt{});
  for (std::uint32_t cpu = 0; cpu < config.cpus; ++cpu) {
    if (cpu < kFirstX2ApicId) {
      append(table, LocalApic{.uid = static_cast<std::uint8_t>(cpu), .apic_id = static_cast<std::uint8_t>(cpu)});
    } else {
      append(table, LocalX2Apic{.x2apic_id = cpu, .uid = cpu});
    }
  }
  append(table, IoApic{});
  append(table, LocalApicNmi{});
  if (config.cpus > kFirstX2ApicId) {
    append(table, LocalX2ApicNmi{});
  }
  return seal(std::move(table));
}

Table make_mcfg(const GuestRange& ecam) {
  return seal_one(Mcfg{.base = raw(ecam.start), .last_bus = static_cast<std::uint8_t>(ecam.size / layout::kMiB - 1)});
}

Table make_xsdt(std::span<const std::uint64_t> tables) {
  Table xsdt;
  append(xsdt, TableHeader{.signature{'X', 'S', 'D', 'T'}, .revision = 1});
  for (const auto address : tables) {
    append(xsdt, address);
  }
  return seal(std::move(xsdt));
}

Rsdp make_rsdp(std::uint64_t xsdt) {
  Rsdp rsdp{.xsdt = xsdt};
  const auto bytes = std::as_bytes(std::span{&rsdp, 1});
  rsdp.checksum = checksum(bytes.first(offsetof(Rsdp, length)));
  rsdp.extended_checksum = checksum(bytes);
  return rsdp;
}

}  // namespace

AcpiTables::AcpiTables(const AcpiConfig& config) : tables_{make_dsdt(config), make_madt(config)} {
  if (config.ecam) {
    tables_.push_back(make_mcfg(*config.ecam));
  }
}

std::uint64_t AcpiTables::size() const noexcept {
  // The XSDT lists the FADT in the place of the DSDT.
  std::uint64_t size =
      align_up(sizeof(Fadt), kTableAlignment) + sizeof(TableHeader) + tables_.size() * sizeof(std::uint64_t);
  for (const auto& table : tables_) {
    size += align_up(table.size(), kTableAlignment);
  }
  return align_up(size, kPageSize);
}

void AcpiTables::write(const GuestMemory& memory, GuestAddr at) const {
  const auto put = [&](const Table& table) {
    if (!memory.write(at, std::as_bytes(std::span{table}))) {
      throw HostError{"there is no RAM for the ACPI tables: use -m 2M or more"};
    }
    const auto address = raw(at);
    at = at + align_up(table.size(), kTableAlignment);
    return address;
  };
  std::vector<std::uint64_t> listed{put(seal_one(Fadt{.dsdt = put(tables_.front())}))};
  std::ranges::transform(std::span{tables_}.subspan(1), std::back_inserter(listed), put);
  const auto xsdt = put(make_xsdt(listed));
  if (!memory.write(layout::kRsdp.start, make_rsdp(xsdt))) {
    throw HostError{"there is no RAM for the ACPI root pointer: use -m 2M or more"};
  }
}

}  // namespace martlet
