#include "boot/mptable.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "boot/table.h"
#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint8_t kSpecification14 = 4;
constexpr std::uint8_t kPciBus = 0;  // kernels take the id for the bus number
constexpr std::uint8_t kIsaBus = 1;
constexpr std::uint8_t kIsaInterrupts = 16;
constexpr std::uint8_t kIoApicId = 0;  // what KVM's register says after reset
constexpr std::uint8_t kIoApicVersion = 0x11;
constexpr std::uint8_t kLocalApicVersion = 0x14;
constexpr std::uint8_t kAllLocalApics = 0xff;

struct FloatingPointer {  // §4.1
  std::array<char, 4> signature{'_', 'M', 'P', '_'};
  std::uint32_t config = static_cast<std::uint32_t>(raw(layout::kMpTable.start));
  std::uint8_t length = 1;  // in paragraphs of 16 bytes
  std::uint8_t specification = kSpecification14;
  std::uint8_t checksum = 0;
  std::array<std::uint8_t, 5> features{};  // a configuration table is present; virtual wire mode, no IMCR
};
static_assert(sizeof(FloatingPointer) == 16);

struct ConfigHeader {  // §4.2
  std::array<char, 4> signature{'P', 'C', 'M', 'P'};
  std::uint16_t length = 0;
  std::uint8_t specification = kSpecification14;
  std::uint8_t checksum = 0;
  std::array<char, 8> oem_id{'M', 'A', 'R', 'T', 'L', 'E', 'T', ' '};
  std::array<char, 12> product_id{'M', 'A', 'R', 'T', 'L', 'E', 'T', ' ', 'P', 'C', ' ', ' '};
  std::uint32_t oem_table = 0;
  std::uint16_t oem_table_size = 0;
  std::uint16_t entries = 0;
  std::uint32_t local_apic = static_cast<std::uint32_t>(raw(layout::kLocalApic.start));
  std::uint16_t extended_length = 0;
  std::uint8_t extended_checksum = 0;
  std::uint8_t reserved = 0;
};
static_assert(sizeof(ConfigHeader) == 44);

struct Processor {  // §4.3.1
  std::uint8_t type = 0;
  std::uint8_t apic_id = 0;
  std::uint8_t apic_version = kLocalApicVersion;
  std::uint8_t flags = 0;           // bit 0 enabled, bit 1 the boot CPU
  std::uint32_t signature = 0x600;  // family 6; kernels ask CPUID
  std::uint32_t features = 0x201;   // FPU and APIC on chip
  std::array<std::uint32_t, 2> reserved{};
};
static_assert(sizeof(Processor) == 20);

struct Bus {  // §4.3.2
  std::uint8_t type = 1;
  std::uint8_t id = 0;
  std::array<char, 6> name{};
};
static_assert(sizeof(Bus) == 8);

struct IoApic {  // §4.3.3
  std::uint8_t type = 2;
  std::uint8_t id = kIoApicId;
  std::uint8_t version = kIoApicVersion;
  std::uint8_t flags = 1;  // enabled
  std::uint32_t address = static_cast<std::uint32_t>(raw(layout::kIoApic.start));
};
static_assert(sizeof(IoApic) == 8);

enum class EntryType : std::uint8_t { IoInterrupt = 3, LocalInterrupt = 4 };
enum class Delivery : std::uint8_t { Vectored = 0, Nmi = 1, ExtInt = 3 };  // §4.3.4, table 4-10

struct Interrupt {  // §4.3.4 and §4.3.5
  EntryType type = EntryType::IoInterrupt;
  Delivery delivery = Delivery::Vectored;
  std::uint16_t flags = 0;  // polarity and trigger as the bus has them
  std::uint8_t source_bus = kIsaBus;
  std::uint8_t source_irq = 0;
  std::uint8_t destination = 0;  // an APIC's id
  std::uint8_t pin = 0;
};
static_assert(sizeof(Interrupt) == 8);

constexpr std::uint16_t kActiveLowLevel = 0x0f;
constexpr std::uint8_t kEnabled = 1U << 0U;
constexpr std::uint8_t kBootProcessor = 1U << 1U;

/// A configuration table that counts its entries.
class ConfigTable {
 public:
  template <class T>
  void add(const T& entry) {
    append(bytes_, entry);
    header_.entries++;
  }
  Table finish() {
    header_.length = static_cast<std::uint16_t>(bytes_.size());
    std::memcpy(bytes_.data(), &header_, sizeof header_);
    bytes_[offsetof(ConfigHeader, checksum)] = std::byte{checksum(bytes_)};
    return std::move(bytes_);
  }

 private:
  ConfigHeader header_;
  Table bytes_ = Table(sizeof(ConfigHeader));
};

FloatingPointer make_pointer() {
  FloatingPointer pointer;
  pointer.checksum = checksum(std::as_bytes(std::span{&pointer, 1}));
  return pointer;
}

}  // namespace

void write_mp_table(const GuestMemory& memory, const MpTableConfig& config) {
  ConfigTable table;
  for (std::uint32_t id = 0; id < std::min(config.cpus, kMaxMpTableCpus); ++id) {
    const auto flags = static_cast<std::uint8_t>(kEnabled | (id == 0 ? kBootProcessor : 0U));
    table.add(Processor{.apic_id = static_cast<std::uint8_t>(id), .flags = flags});
  }
  if (config.pci) {
    table.add(Bus{.id = kPciBus, .name = {'P', 'C', 'I', ' ', ' ', ' '}});
  }
  table.add(Bus{.id = kIsaBus, .name = {'I', 'S', 'A', ' ', ' ', ' '}});
  table.add(IoApic{});
  // KVM's own routing connects each interrupt, the PIT's IRQ 0 too, to the pin of its number.
  for (std::uint8_t irq = 0; irq < kIsaInterrupts; ++irq) {
    table.add(Interrupt{.source_irq = irq, .destination = kIoApicId, .pin = irq});
  }
  for (std::uint8_t slot = 1; config.pci && slot < layout::kPciSlots; ++slot) {
    table.add(Interrupt{.flags = kActiveLowLevel,
                        .source_bus = kPciBus,
                        .source_irq = static_cast<std::uint8_t>(slot << 2U),  // bits 0 and 1: INTA#, §D.3
                        .destination = kIoApicId,
                        .pin = layout::kPciIrqs.at(slot % layout::kPciIrqs.size())});
  }
  table.add(Interrupt{.type = EntryType::LocalInterrupt, .delivery = Delivery::ExtInt, .pin = 0});
  table.add(
      Interrupt{.type = EntryType::LocalInterrupt, .delivery = Delivery::Nmi, .destination = kAllLocalApics, .pin = 1});

  const auto bytes = table.finish();
  if (!memory.write(layout::kMpTable.start, std::as_bytes(std::span{bytes})) ||
      !memory.write(layout::kEbda.start, make_pointer())) {
    throw HostError{"there is no RAM for the MP table: use -m 2M or more"};
  }
}

}  // namespace martlet
