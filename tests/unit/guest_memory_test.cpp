#include "vmm/base/guest_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"
#include "vmm/x86_64/ram.h"

namespace martlet {
namespace {

using layout::kGiB;
using layout::kMiB;

TEST(RamRanges, LeaveTheHoleBelow4GiB) {
  EXPECT_EQ(ram_ranges(2 * kMiB), (std::vector<GuestRange>{{GuestAddr{0}, 2 * kMiB}}));
  EXPECT_EQ(ram_ranges(3 * kGiB), (std::vector<GuestRange>{{GuestAddr{0}, 3 * kGiB}}));
  EXPECT_EQ(ram_ranges(5 * kGiB), (std::vector<GuestRange>{{GuestAddr{0}, 3 * kGiB}, {GuestAddr{4 * kGiB}, 2 * kGiB}}));
}

class TwoRegions : public testing::Test {
 protected:
  GuestMemory memory{ram_ranges(64 * kGiB)};  // reserved only: untouched pages cost nothing
};

TEST_F(TwoRegions, ReadsBackWhatWasWritten) {
  for (const auto addr : {std::uint64_t{0}, 3 * kGiB - 8, 4 * kGiB, 65 * kGiB - 8}) {
    ASSERT_TRUE(memory.write(GuestAddr{addr}, std::uint64_t{0x1122334455667788} + addr));
    EXPECT_EQ(memory.read<std::uint64_t>(GuestAddr{addr}), 0x1122334455667788 + addr);
  }
  EXPECT_EQ(memory.size(), 64 * kGiB);
}

TEST_F(TwoRegions, RefusesWhatIsNotWhollyRam) {
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  struct Case {
    std::uint64_t addr;
    std::uint64_t length;
  };
  for (const auto& [addr, length] :
       {Case{3 * kGiB - 7, 8}, Case{3 * kGiB, 1}, Case{4 * kGiB - 1, 2}, Case{65 * kGiB, 1}, Case{65 * kGiB - 7, 8},
        Case{0, 3 * kGiB + 1}, Case{8, kMax}, Case{8, kMax - 7}, Case{kMax, 1}, Case{kMax, 2}, Case{kMax - 7, 8},
        Case{4 * kGiB, kMax}}) {
    EXPECT_FALSE(memory.slice(GuestAddr{addr}, length)) << std::hex << addr << " + " << length;
  }
  EXPECT_FALSE(memory.read<std::uint64_t>(GuestAddr{3 * kGiB - 4}));
}

TEST_F(TwoRegions, AnEmptySliceInsideRamIsEmpty) {
  const auto slice = memory.slice(GuestAddr{4096}, 0);
  ASSERT_TRUE(slice);
  EXPECT_TRUE(slice->empty());
}

TEST_F(TwoRegions, ARefusedWriteChangesNothing) {
  const std::array<std::byte, 8> ones{std::byte{1}, std::byte{1}, std::byte{1}, std::byte{1},
                                      std::byte{1}, std::byte{1}, std::byte{1}, std::byte{1}};
  EXPECT_FALSE(memory.write(GuestAddr{3 * kGiB - 4}, std::span<const std::byte>{ones}));
  EXPECT_EQ(memory.read<std::uint32_t>(GuestAddr{3 * kGiB - 4}), 0U);
}

TEST(GuestMemory, HostAddressesShareTheGuests2MiBAlignment) {
  const GuestMemory memory{ram_ranges(5 * kGiB)};
  for (const auto& region : memory.regions()) {
    EXPECT_EQ((reinterpret_cast<std::uintptr_t>(region.bytes.data()) ^ raw(region.range.start)) % (2 * kMiB), 0U);
  }
}

TEST(GuestMemory, AMemfdHoldsAllRegionsOneAfterTheOther) {
  const GuestMemory memory{ram_ranges(3 * kGiB + 4 * kMiB), GuestMemory::Backing::Memfd};
  ASSERT_GE(memory.file(), 0);
  ASSERT_TRUE(memory.write(GuestAddr{4 * kGiB}, std::uint32_t{42}));
  std::uint32_t value = 0;
  read_exactly(memory.file(), std::as_writable_bytes(std::span{&value, 1}), memory.regions()[1].file_offset, "memfd");
  EXPECT_EQ(value, 42U);
}

TEST(GuestMemory, HugePagesThatAreNotThereAreNamed) {
  try {
    const GuestMemory memory{ram_ranges(64 * kGiB), GuestMemory::Backing::HugeTlb};
    FAIL() << "64 GiB of huge pages?";
  } catch (const HostError& error) {
    EXPECT_NE(std::string{error.what()}.find("huge pages"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace martlet
