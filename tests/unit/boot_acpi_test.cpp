#include <fmt/format.h>
#include <gmock/gmock.h>

#include <map>

#include "boot/acpi.h"
#include "boot/aml.h"
#include "boot/placement.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;
using testing::HasSubstr;
using testing::Not;

constexpr GuestAddr kAt{8 * kMiB};

template <class T>
T field(const Bytes& table, std::size_t offset) {
  T value{};
  if (offset + sizeof value > table.size()) {
    ADD_FAILURE() << "table ends before offset " << offset;
    return value;
  }
  std::memcpy(&value, &table[offset], sizeof value);
  return value;
}
std::uint8_t byte(const Bytes& table, std::size_t offset) { return field<std::uint8_t>(table, offset); }

/// A guest with tables, read the way a kernel finds them: RSDP → XSDT → FADT → DSDT.
class Tables {
 public:
  explicit Tables(const AcpiConfig& config) {
    const AcpiTables tables{config};
    tables.write(guest_, kAt);
    end_ = raw(kAt) + tables.size();
    rsdp_ = copy(layout::kRsdp.start, 36);
    const auto xsdt = add(field<std::uint64_t>(rsdp_, 24));
    for (std::size_t at = 36; at + 8 <= xsdt.size(); at += 8) {
      add(field<std::uint64_t>(xsdt, at));
    }
    add(field<std::uint64_t>((*this)["FACP"], 140));
  }
  const Bytes& operator[](const std::string& signature) const { return tables_.at(signature); }
  [[nodiscard]] const std::map<std::string, Bytes>& all() const { return tables_; }
  [[nodiscard]] const Bytes& rsdp() const { return rsdp_; }

 private:
  Bytes copy(GuestAddr at, std::uint64_t size) {
    const auto bytes = guest_.slice(at, size).value();
    return {bytes.begin(), bytes.end()};
  }
  Bytes add(std::uint64_t address) {
    EXPECT_GE(address, raw(kAt));
    EXPECT_EQ(address % 16, 0U);
    const auto table = copy(GuestAddr{address}, guest_.read<std::uint32_t>(GuestAddr{address + 4}).value());
    EXPECT_LE(address + table.size(), end_);
    tables_[{reinterpret_cast<const char*>(table.data()), 4}] = table;
    return table;
  }
  GuestMemory guest_ = make_guest(16 * kMiB);
  std::uint64_t end_ = 0;
  Bytes rsdp_;
  std::map<std::string, Bytes> tables_;
};

const AcpiConfig kPlain{.cpus = 4};
const AcpiConfig kFull{.cpus = 300, .ecam = layout::kPciEcam};
const AcpiConfig kMmio{.virtio_mmio = layout::kVirtioMmioIrqs.size()};

TEST(BootAcpi, RootPointer) {
  const Tables tables{kPlain};
  EXPECT_EQ(std::memcmp(tables.rsdp().data(), "RSD PTR ", 8), 0);
  EXPECT_EQ(byte(tables.rsdp(), 15), 2);
  EXPECT_EQ(byte_sum(std::span{tables.rsdp()}.first(20)), 0U);
  EXPECT_EQ(byte_sum(tables.rsdp()), 0U);
}

TEST(BootAcpi, EveryTableIsThereAndSumsToZero) {
  for (const auto& config : {kPlain, kFull}) {
    const Tables tables{config};
    EXPECT_EQ(tables.all().size(), config.ecam ? 5U : 4U);
    for (const auto& [signature, table] : tables.all()) {
      EXPECT_EQ(byte_sum(table), 0U) << signature;
    }
  }
}

TEST(BootAcpi, SizeIsWholePagesAndEnough) {
  EXPECT_EQ(AcpiTables{kPlain}.size(), kPageSize);
  EXPECT_GE(AcpiTables{{.cpus = 4096}}.size(), 61440U);
  EXPECT_EQ(AcpiTables{{.cpus = 4096}}.size() % kPageSize, 0U);
  static_cast<void>(Tables{{.cpus = 4096}});  // checks that each table ends inside
}

TEST(BootAcpi, NoRoom) {
  const auto guest = make_guest(2 * kMiB);
  EXPECT_THAT(error_of([&] { AcpiTables{kPlain}.write(guest, GuestAddr{2 * kMiB - 16}); }),
              HasSubstr("no RAM for the ACPI tables"));
}

TEST(BootAcpi, FadtSaysHardwareReduced) {
  const Tables tables{kPlain};
  const auto& fadt = tables["FACP"];
  ASSERT_EQ(fadt.size(), 276U);
  const auto flags = field<std::uint32_t>(fadt, 112);
  EXPECT_TRUE(flags & 1U << 20U) << "HW_REDUCED_ACPI";
  EXPECT_TRUE(flags & 1U << 10U) << "RESET_REG_SUP";
  EXPECT_TRUE(flags & 1U << 4U) << "PWR_BUTTON";
  const auto boot_flags = field<std::uint16_t>(fadt, 109);
  EXPECT_FALSE(boot_flags & 1U << 1U) << "8042";
  EXPECT_TRUE(boot_flags & 1U << 2U) << "VGA not present";
  EXPECT_FALSE(boot_flags & 1U << 3U) << "MSI not supported";
  EXPECT_FALSE(boot_flags & 1U << 5U) << "CMOS RTC not present";
  const auto is_port = [&](std::size_t at, std::uint64_t port) {
    EXPECT_EQ(byte(fadt, at), 1) << "SystemIO";
    EXPECT_EQ(byte(fadt, at + 1), 8) << "bits";
    EXPECT_EQ(field<std::uint64_t>(fadt, at + 4), port);
  };
  is_port(116, layout::kAcpiReset.start);
  EXPECT_EQ(byte(fadt, 128), 1) << "reset value";
  is_port(244, layout::kAcpiSleep.start);
  is_port(256, layout::kAcpiSleep.start + 1);
  EXPECT_TRUE(std::all_of(fadt.begin() + 36, fadt.begin() + 109, [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(field<std::uint64_t>(fadt, 132), 0U) << "FACS";
}

std::map<unsigned, std::vector<std::size_t>> madt_entries(const Bytes& madt) {
  std::map<unsigned, std::vector<std::size_t>> entries;
  std::size_t at = 44;
  while (at < madt.size()) {
    entries[byte(madt, at)].push_back(at);
    EXPECT_GE(byte(madt, at + 1), 2);
    at += std::max<std::size_t>(byte(madt, at + 1), 2);
  }
  EXPECT_EQ(at, madt.size());
  return entries;
}

TEST(BootAcpi, MadtListsCpusBelow255AsLocalApics) {
  for (const std::uint32_t cpus : {1U, 4U, 254U, 255U}) {
    const Tables tables{{.cpus = cpus}};
    const auto& madt = tables["APIC"];
    EXPECT_EQ(field<std::uint32_t>(madt, 36), raw(layout::kLocalApic.start));
    auto entries = madt_entries(madt);
    ASSERT_EQ(entries[0].size(), cpus);
    for (std::uint32_t cpu = 0; cpu < cpus; ++cpu) {
      EXPECT_EQ(byte(madt, entries[0][cpu] + 2), cpu);
      EXPECT_EQ(byte(madt, entries[0][cpu] + 3), cpu);
      EXPECT_EQ(field<std::uint32_t>(madt, entries[0][cpu] + 4), 1U);
    }
    EXPECT_TRUE(entries[9].empty());
    EXPECT_TRUE(entries[0xa].empty());
    EXPECT_EQ(entries[4].size(), 1U);
    EXPECT_TRUE(entries[2].empty()) << "every ISA interrupt is wired to the pin of its number";
  }
}

TEST(BootAcpi, MadtListsCpusFrom255AsX2Apics) {
  const Tables tables{kFull};
  const auto& madt = tables["APIC"];
  auto entries = madt_entries(madt);
  EXPECT_EQ(entries[0].size(), 255U);
  ASSERT_EQ(entries[9].size(), 45U);
  EXPECT_EQ(field<std::uint32_t>(madt, entries[9][0] + 4), 255U);
  EXPECT_EQ(field<std::uint32_t>(madt, entries[9][44] + 4), 299U);
  EXPECT_EQ(field<std::uint32_t>(madt, entries[9][44] + 12), 299U) << "uid";
  ASSERT_EQ(entries[0xa].size(), 1U);
  ASSERT_EQ(entries[1].size(), 1U);
  EXPECT_EQ(field<std::uint32_t>(madt, entries[1][0] + 4), raw(layout::kIoApic.start));
  EXPECT_EQ(field<std::uint32_t>(madt, entries[1][0] + 8), 0U) << "GSI base";
}

TEST(BootAcpi, McfgOnlyWhenThereIsEcam) {
  EXPECT_EQ(Tables{kPlain}.all().count("MCFG"), 0U);
  const Tables tables{{.ecam = GuestRange{layout::kPciEcam.start, 256 * kMiB}}};
  const auto& mcfg = tables["MCFG"];
  ASSERT_EQ(mcfg.size(), 60U);
  EXPECT_EQ(field<std::uint64_t>(mcfg, 44), raw(layout::kPciEcam.start));
  EXPECT_EQ(byte(mcfg, 54), 0);
  EXPECT_EQ(byte(mcfg, 55), 255);
}

// --- What Intel's compiler makes of them.

class Iasl {
 public:
  /// Disassembles `table`, compiles what came out, and returns the source.
  std::string round_trip(const std::string& signature, const Bytes& table) {
    const auto aml = dir_.write(signature + ".dat", table);
    const auto source = dir_ / signature + ".dsl";
    const auto disassembled = run("iasl -d " + aml);
    EXPECT_EQ(disassembled.status, 0) << disassembled.output;
    EXPECT_THAT(disassembled.output, Not(HasSubstr("Warning"))) << disassembled.output;
    EXPECT_THAT(disassembled.output, Not(HasSubstr("Error"))) << disassembled.output;
    const auto compiled = run("iasl -on -p " + dir_ / "again-" + signature + " " + source);
    EXPECT_EQ(compiled.status, 0) << compiled.output;
    if (signature == "DSDT") {
      EXPECT_THAT(compiled.output, HasSubstr("0 Errors, 0 Warnings")) << compiled.output << read_file(source);
    }
    auto again = read_file(dir_ / "again-" + signature + ".aml");
    EXPECT_EQ(again.size(), table.size()) << signature;
    // All but the checksum and the compiler's own signature (bytes 28 to 35) must be what we wrote.
    auto ours = std::string{reinterpret_cast<const char*>(table.data()), table.size()};
    for (auto* text : {&again, &ours}) {
      if (text->size() >= 36) {
        (*text)[9] = 0;
        std::fill_n(text->begin() + 28, 8, '\0');
      }
    }
    EXPECT_TRUE(again == ours) << signature << " changed: " << read_file(source);
    return read_file(source);
  }

 private:
  FileDir dir_;
};

TEST(BootAcpi, IaslReadsEveryTableAndWritesItBack) {
  ASSERT_EQ(run("iasl -v").status, 0) << "install acpica-tools";
  for (const auto& config : {kPlain, kFull, kMmio}) {
    Iasl iasl;
    const Tables tables{config};
    for (const auto& [signature, table] : tables.all()) {
      iasl.round_trip(signature, table);
    }
  }
}

TEST(BootAcpi, DsdtHasTheMachinesDevices) {
  Iasl iasl;
  const auto source = iasl.round_trip("DSDT", Tables{kFull}["DSDT"]);
  for (const auto* part : {"Name (\\_S5, Package (0x04)",
                           "Device (COM1)",
                           "EisaId (\"PNP0501\")",
                           "Device (RTC)",
                           "EisaId (\"PNP0B00\")",
                           "\"QEMU0001\"",
                           "\"QEMU0002\"",
                           "Device (PWRB)",
                           "EisaId (\"PNP0C0C\")",
                           "\"ACPI0013\"",
                           "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive",
                           "OperationRegion (EVTR, SystemIO, 0x0604, One)",
                           "Method (_EVT, 1,",
                           "Local0 = EVTS",
                           "If ((Local0 & One))",
                           "Notify (PWRB, 0x80)",
                           "EisaId (\"PNP0C02\")",
                           "IRQNoFlags ()",
                           "Memory32Fixed (ReadWrite,",
                           "Device (PCI0)",
                           "EisaId (\"PNP0A03\")",
                           "Name (_PRT, Package (0x1F)",
                           "WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,",
                           "DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,"}) {
    EXPECT_THAT(source, HasSubstr(part));
  }
  EXPECT_EQ(source.find("Memory32Fixed"), source.rfind("Memory32Fixed"));
  EXPECT_THAT(source, Not(HasSubstr("LNRO0005")));
  EXPECT_THAT(iasl.round_trip("DSDT", Tables{kPlain}["DSDT"]), Not(HasSubstr("Memory32Fixed")));
}

TEST(BootAcpi, DsdtHasEachVirtioMmioDevice) {
  Iasl iasl;
  const auto source = iasl.round_trip("DSDT", Tables{kMmio}["DSDT"]);
  for (std::size_t slot = 0; slot < kMmio.virtio_mmio; ++slot) {
    const auto device = source.find(fmt::format("Device (VR{:02X})", slot));
    ASSERT_NE(device, std::string::npos) << slot;
    const auto node = source.substr(device, source.find("})", device) - device);
    EXPECT_THAT(node, HasSubstr("\"LNRO0005\""));
    EXPECT_THAT(node, HasSubstr(fmt::format("0x{:08X},", raw(layout::virtio_mmio(slot).start))));
    EXPECT_THAT(node, HasSubstr(fmt::format("0x{:08X},\n", layout::kVirtioMmioIrqs.at(slot))));
  }
  EXPECT_THAT(source, Not(HasSubstr("PCI0")));
}

// --- The builder.

TEST(BootAml, Integers) {
  using aml::integer;
  EXPECT_EQ(integer(0), (aml::Bytes{0x00}));
  EXPECT_EQ(integer(1), (aml::Bytes{0x01}));
  EXPECT_EQ(integer(2), (aml::Bytes{0x0a, 2}));
  EXPECT_EQ(integer(0xff), (aml::Bytes{0x0a, 0xff}));
  EXPECT_EQ(integer(0x100), (aml::Bytes{0x0b, 0x00, 0x01}));
  EXPECT_EQ(integer(0x12345), (aml::Bytes{0x0c, 0x45, 0x23, 0x01, 0x00}));
  EXPECT_EQ(integer(0x123456789a), (aml::Bytes{0x0e, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0}));
}

TEST(BootAml, Names) {
  using aml::reference;
  const auto is = [](const aml::Bytes& bytes, std::string_view text) {
    return std::string{bytes.begin(), bytes.end()} == text;
  };
  EXPECT_TRUE(is(reference("A"), "A___"));
  EXPECT_TRUE(is(reference("\\_SB"), "\\_SB_"));
  EXPECT_TRUE(is(reference("\\_SB.PCI0"), "\\\x2e_SB_PCI0"));
  EXPECT_TRUE(is(reference("_SB.PCI0.S01"), "\x2f\x03_SB_PCI0S01_"));
  EXPECT_THROW(static_cast<void>(reference("TOOLONG")), std::logic_error);
  EXPECT_THROW(static_cast<void>(reference("A..B")), std::logic_error);
}

TEST(BootAml, EisaIds) {
  EXPECT_EQ(aml::eisa_id("PNP0501"), (aml::Bytes{0x0c, 0x41, 0xd0, 0x05, 0x01}));
  EXPECT_THROW(static_cast<void>(aml::eisa_id("PNP05")), std::logic_error);
  EXPECT_THROW(static_cast<void>(aml::eisa_id("PNPXYZW")), std::logic_error);
}

TEST(BootAml, PackageLengthsOfAllFourSizes) {
  // A scope's content is its name, 4 bytes here, and a string of n characters, n + 2 bytes.
  const auto encoded = [](std::size_t content, std::size_t bytes) {
    const auto scope = aml::scope("A", {aml::string(std::string(content - 6, 'x'))});
    EXPECT_EQ(scope.size(), 1 + bytes + content);
    return aml::Bytes{scope.begin() + 1, scope.begin() + 1 + static_cast<long>(bytes)};
  };
  EXPECT_EQ(encoded(62, 1), (aml::Bytes{63}));
  EXPECT_EQ(encoded(63, 2), (aml::Bytes{0x41, 0x04}));
  EXPECT_EQ(encoded(4093, 2), (aml::Bytes{0x4f, 0xff}));
  EXPECT_EQ(encoded(4094, 3), (aml::Bytes{0x81, 0x00, 0x01}));
  EXPECT_EQ(encoded(0xffffc, 3), (aml::Bytes{0x8f, 0xff, 0xff}));
  EXPECT_EQ(encoded(0xffffd, 4), (aml::Bytes{0xc1, 0x00, 0x00, 0x01}));
}

}  // namespace
}  // namespace martlet
