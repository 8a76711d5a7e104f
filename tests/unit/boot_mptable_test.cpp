#include <map>

#include "boot/mptable.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;

/// A guest's MP table, found and checked the way a kernel does it.
struct MpTable {
  explicit MpTable(std::uint32_t cpus, bool pci = false) {
    const auto guest = make_guest(2 * kMiB);
    write_mp_table(guest, {.cpus = cpus, .pci = pci});
    const auto pointer = guest.slice(layout::kEbda.start, 16).value();
    EXPECT_EQ(std::memcmp(pointer.data(), "_MP_", 4), 0);
    EXPECT_EQ(std::to_integer<int>(pointer[8]), 1);
    EXPECT_EQ(byte_sum(pointer), 0U);
    const GuestAddr at{guest.read<std::uint32_t>(layout::kEbda.start + 4).value()};
    EXPECT_EQ(at, layout::kMpTable.start);
    const auto length = guest.read<std::uint16_t>(at + 4).value();
    const auto bytes = guest.slice(at, length).value();
    EXPECT_EQ(std::memcmp(bytes.data(), "PCMP", 4), 0);
    EXPECT_EQ(byte_sum(bytes), 0U);
    const auto count = guest.read<std::uint16_t>(at + 34).value();
    std::size_t offset = 44;
    for (unsigned i = 0; i < count; ++i) {
      const auto type = std::to_integer<unsigned>(bytes[offset]);
      const std::size_t size = type == 0 ? 20 : 8;
      std::vector<unsigned> entry;
      for (const auto byte : bytes.subspan(offset, size)) {
        entry.push_back(std::to_integer<unsigned>(byte));
      }
      entries[type].push_back(entry);
      offset += size;
    }
    EXPECT_EQ(offset, length);
  }
  std::map<unsigned, std::vector<std::vector<unsigned>>> entries;
};

TEST(BootMpTable, ListsCpusTheFirstOfThemBoots) {
  MpTable table{3};
  ASSERT_EQ(table.entries[0].size(), 3U);
  for (unsigned id = 0; id < 3; ++id) {
    EXPECT_EQ(table.entries[0][id][1], id);
    EXPECT_EQ(table.entries[0][id][3], id == 0 ? 3U : 1U);
  }
}

TEST(BootMpTable, OneIsaBusAndOneIoApic) {
  MpTable table{1};
  ASSERT_EQ(table.entries[1].size(), 1U);
  EXPECT_EQ(std::string(table.entries[1][0].begin() + 2, table.entries[1][0].end()), "ISA   ");
  ASSERT_EQ(table.entries[2].size(), 1U);
  EXPECT_EQ(table.entries[2][0], (std::vector<unsigned>{2, 0, 0x11, 1, 0x00, 0x00, 0xc0, 0xfe}));
}

TEST(BootMpTable, InterruptsAreWiredAsKvmRoutesThem) {
  MpTable table{1};
  ASSERT_EQ(table.entries[3].size(), 16U);
  for (unsigned irq = 0; irq < 16; ++irq) {
    EXPECT_EQ(table.entries[3][irq], (std::vector<unsigned>{3, 0, 0, 0, 1, irq, 0, irq}));
  }
  ASSERT_EQ(table.entries[4].size(), 2U);
  EXPECT_EQ(table.entries[4][0], (std::vector<unsigned>{4, 3, 0, 0, 1, 0, 0, 0}));     // ExtINT at LINT0
  EXPECT_EQ(table.entries[4][1], (std::vector<unsigned>{4, 1, 0, 0, 1, 0, 0xff, 1}));  // NMI at everyone's LINT1
}

TEST(BootMpTable, PciInterruptsAreLevelTriggeredOnFourPins) {
  MpTable table{1, true};
  ASSERT_EQ(table.entries[1].size(), 2U);
  EXPECT_EQ(table.entries[1][0], (std::vector<unsigned>{1, 0, 'P', 'C', 'I', ' ', ' ', ' '}));
  EXPECT_EQ(table.entries[1][1], (std::vector<unsigned>{1, 1, 'I', 'S', 'A', ' ', ' ', ' '}));
  ASSERT_EQ(table.entries[3].size(), 16U + 31U);
  EXPECT_EQ(table.entries[3][16], (std::vector<unsigned>{3, 0, 0x0f, 0, 0, 1U << 2U, 0, 17}));
  EXPECT_EQ(table.entries[3][46], (std::vector<unsigned>{3, 0, 0x0f, 0, 0, 31U << 2U, 0, 19}));
}

TEST(BootMpTable, AtMost255Cpus) {
  EXPECT_EQ(MpTable{255}.entries[0].size(), 255U);
  EXPECT_EQ(MpTable{4096}.entries[0].size(), 255U);
}

}  // namespace
}  // namespace martlet
