#include "boot/boot_params.h"

#include <gmock/gmock.h>

#include "boot/command_line.h"
#include "boot/pvh.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;
using testing::HasSubstr;

using Map = std::vector<MemoryMapEntry>;

MemoryMapEntry ram(std::uint64_t start, std::uint64_t end) {
  return {{GuestAddr{start}, end - start}, MemoryType::Ram};
}
MemoryMapEntry entry(std::uint64_t start, std::uint64_t end, MemoryType type) {
  return {{GuestAddr{start}, end - start}, type};
}
const MemoryMapEntry kFirmware = entry(0x9fc00, 0x100000, MemoryType::Reserved);

TEST(BootMemoryMap, SmallGuest) {
  EXPECT_EQ(make_memory_map({.ram = ram_ranges(2 * kMiB)}), (Map{ram(0, 0x9fc00), kFirmware, ram(kMiB, 2 * kMiB)}));
}

TEST(BootMemoryMap, OneMiBHasNoHighMemory) {
  EXPECT_EQ(make_memory_map({.ram = ram_ranges(kMiB)}), (Map{ram(0, 0x9fc00), kFirmware}));
}

TEST(BootMemoryMap, TablesAtTheTopOfLowRam) {
  const GuestRange acpi{GuestAddr{3 * kGiB - 0x2000}, 0x2000};
  EXPECT_EQ(make_memory_map({.ram = ram_ranges(5 * kGiB), .acpi = acpi}),
            (Map{ram(0, 0x9fc00), kFirmware, ram(kMiB, 3 * kGiB - 0x2000),
                 entry(3 * kGiB - 0x2000, 3 * kGiB, MemoryType::AcpiReclaimable), ram(4 * kGiB, 6 * kGiB)}));
}

TEST(BootMemoryMap, TablesInTheMiddleAndEcam) {
  EXPECT_EQ(make_memory_map({.ram = ram_ranges(64 * kGiB),
                             .acpi = GuestRange{GuestAddr{0x10000000}, 0x1000},
                             .ecam = GuestRange{layout::kPciEcam.start, 0x100000}}),
            (Map{ram(0, 0x9fc00), kFirmware, ram(kMiB, 0x10000000),
                 entry(0x10000000, 0x10001000, MemoryType::AcpiReclaimable), ram(0x10001000, 3 * kGiB),
                 entry(0xe0000000, 0xe0100000, MemoryType::Reserved), ram(4 * kGiB, 65 * kGiB)}));
}

TEST(BootMemoryMap, AlwaysAscendingDisjointAndComplete) {
  for (std::uint64_t size = kMiB; size <= 64 * kGiB; size *= 2) {
    for (const std::uint64_t more : {std::uint64_t{0}, 4 * kKiB, kGiB}) {
      const auto ranges = ram_ranges(size + more);
      const auto low_end = ranges.front().end();
      const GuestRange acpi{GuestAddr{low_end - 0x1000}, 0x1000};
      const bool room = raw(acpi.start) >= kMiB;
      const auto map = make_memory_map({.ram = ranges, .acpi = room ? std::optional{acpi} : std::nullopt});
      std::uint64_t end = 0;
      std::uint64_t total = 0;
      for (const auto& part : map) {
        EXPECT_GE(raw(part.range.start), end);
        EXPECT_GT(part.range.size, 0U);
        end = part.range.end();
        total += part.range.size;
      }
      EXPECT_EQ(end, ranges.back().end());
      EXPECT_EQ(total, size + more);
    }
  }
}

TEST(BootCommandLine, EndsWithNul) {
  const auto guest = make_guest(2 * kMiB);
  ASSERT_TRUE(guest.write(layout::kCommandLine.start + 5, std::uint8_t{0xff}));
  EXPECT_EQ(write_command_line(guest, "quiet", 5), (GuestRange{layout::kCommandLine.start, 6}));
  const auto bytes = guest.slice(layout::kCommandLine.start, 6).value();
  EXPECT_STREQ(reinterpret_cast<const char*>(bytes.data()), "quiet");
}

TEST(BootCommandLine, Limits) {
  const auto guest = make_guest(2 * kMiB);
  EXPECT_EQ(error_of([&] { write_command_line(guest, std::string(2050, 'x'), 2047); }),
            "the kernel command line has 2050 characters, and this kernel takes 2047: shorten -a by 3");
  // A kernel that takes more than we have room for does not get it.
  EXPECT_THAT(error_of([&] { write_command_line(guest, std::string(65536, 'x'), ~0ULL); }), HasSubstr("takes 65535"));
  EXPECT_EQ(write_command_line(guest, std::string(65535, 'x'), ~0ULL).size, 65536U);
  EXPECT_THAT(error_of([&] { write_command_line(guest, std::string_view{"a\0b", 3}, 100); }), HasSubstr("holds a NUL"));
}

class BootParams : public testing::Test {
 protected:
  BootInfo info_ = {.memory_map = map_,
                    .command_line = {layout::kCommandLine.start, 6},
                    .initrd = GuestRange{GuestAddr{0x1'2345'6000}, 0x2'0000'0001},
                    .rsdp = layout::kRsdp.start,
                    .setup_data = GuestAddr{0x7000000}};
  LoadedKernel kernel_{.header = setup_header{.setup_sects = 39,
                                              .boot_flag = 0xaa55,
                                              .header = 0x53726448,
                                              .version = 0x20f,
                                              .loadflags = LOADED_HIGH | KASLR_FLAG,
                                              .kernel_alignment = 0x200000,
                                              .init_size = 0x3378000}};
  GuestMemory guest_ = make_guest(8 * kMiB);
  Map map_ = make_memory_map({.ram = ram_ranges(5 * kGiB)});

  void SetUp() override { info_.memory_map = map_; }
  boot_params written() {
    write_boot_params(guest_, kernel_, info_);
    return guest_.read<boot_params>(layout::kZeroPage.start).value();
  }
};

TEST_F(BootParams, ZeroPageOfABzImage) {
  const auto params = written();
  EXPECT_EQ(params.hdr.setup_sects, 39);
  EXPECT_EQ(std::uint32_t{params.hdr.init_size}, 0x3378000U);
  EXPECT_EQ(params.hdr.loadflags, LOADED_HIGH | KASLR_FLAG);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(std::uint32_t{params.hdr.cmd_line_ptr}, 0x20000U);
  EXPECT_EQ(std::uint32_t{params.ext_cmd_line_ptr}, 0U);
  EXPECT_EQ(std::uint32_t{params.hdr.ramdisk_image}, 0x23456000U);
  EXPECT_EQ(std::uint32_t{params.ext_ramdisk_image}, 1U);
  EXPECT_EQ(std::uint32_t{params.hdr.ramdisk_size}, 1U);
  EXPECT_EQ(std::uint32_t{params.ext_ramdisk_size}, 2U);
  EXPECT_EQ(std::uint64_t{params.acpi_rsdp_addr}, 0xe0000U);
  EXPECT_EQ(std::uint64_t{params.hdr.setup_data}, 0x7000000U);
  EXPECT_EQ(params.sentinel, 0);
  ASSERT_EQ(params.e820_entries, 4);
  const auto& last = params.e820_table[3];
  EXPECT_EQ(std::uint64_t{last.addr}, 4 * kGiB);
  EXPECT_EQ(std::uint64_t{last.size}, 2 * kGiB);
  EXPECT_EQ(std::uint32_t{last.type}, 1U);
  EXPECT_EQ(std::uint32_t{params.e820_table[1].type}, 2U);
}

TEST_F(BootParams, ZeroPageOfAnElf) {
  kernel_.header.reset();
  info_.initrd.reset();
  info_.rsdp.reset();
  info_.setup_data.reset();
  const auto params = written();
  EXPECT_EQ(std::uint16_t{params.hdr.boot_flag}, 0xaa55);
  EXPECT_EQ(std::uint32_t{params.hdr.header}, 0x53726448U);
  EXPECT_GE(std::uint16_t{params.hdr.version}, 0x20c);
  EXPECT_EQ(params.hdr.loadflags, LOADED_HIGH);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(std::uint32_t{params.hdr.ramdisk_size}, 0U);
  EXPECT_EQ(std::uint64_t{params.acpi_rsdp_addr}, 0U);
  EXPECT_EQ(std::uint64_t{params.hdr.setup_data}, 0U);
}

TEST_F(BootParams, AtMost128MemoryMapEntries) {
  const Map full(128, ram(0, 1));
  info_.memory_map = full;
  EXPECT_EQ(written().e820_entries, 128);
  const Map over(129, ram(0, 1));
  info_.memory_map = over;
  EXPECT_THAT(error_of([&] { written(); }), HasSubstr("has 129 entries, and the zero page takes 128"));
}

TEST_F(BootParams, PvhStartInfo) {
  info_.setup_data.reset();
  write_pvh_start_info(guest_, info_);
  const auto at = [&]<class T>(T, std::uint64_t address) { return guest_.read<T>(GuestAddr{address}).value(); };
  constexpr std::uint32_t k32 = 0;
  constexpr std::uint64_t k64 = 0;
  EXPECT_EQ(at(k32, 0x6000), 0x336ec578U);
  EXPECT_EQ(at(k32, 0x6004), 1U);  // version
  EXPECT_EQ(at(k32, 0x600c), 1U);  // one module
  const auto module = at(k64, 0x6010);
  EXPECT_EQ(at(k64, module), 0x123456000U);
  EXPECT_EQ(at(k64, module + 8), 0x200000001U);
  EXPECT_EQ(at(k64, 0x6018), 0x20000U);  // command line
  EXPECT_EQ(at(k64, 0x6020), 0xe0000U);  // RSDP
  const auto map = at(k64, 0x6028);
  ASSERT_EQ(at(k32, 0x6030), 4U);  // map entries
  EXPECT_EQ(at(k64, map + 3 * 24), 4 * kGiB);
  EXPECT_EQ(at(k64, map + 3 * 24 + 8), 2 * kGiB);
  EXPECT_EQ(at(k32, map + 3 * 24 + 16), 1U);
}

TEST_F(BootParams, PvhWithoutInitrdHasNoModule) {
  info_.setup_data.reset();
  info_.initrd.reset();
  write_pvh_start_info(guest_, info_);
  EXPECT_EQ(guest_.read<std::uint32_t>(layout::kPvhStartInfo.start + 12), 0U);
  EXPECT_EQ(guest_.read<std::uint64_t>(layout::kPvhStartInfo.start + 16), 0U);
}

TEST_F(BootParams, PvhRefuses) {
  EXPECT_THAT(error_of([&] { write_pvh_start_info(guest_, info_); }), HasSubstr("cannot be given a device tree"));
  info_.setup_data.reset();
  const Map over(168, ram(0, 1));
  info_.memory_map = over;
  EXPECT_THAT(error_of([&] { write_pvh_start_info(guest_, info_); }),
              HasSubstr("has 168 entries, and PVH's page takes 167"));
}

}  // namespace
}  // namespace martlet
