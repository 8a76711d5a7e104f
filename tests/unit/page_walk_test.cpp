#include "vmm/debug/page_walk.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/unit/page_tables.h"

namespace martlet {
namespace {

constexpr std::uint64_t kRam = 4U << 20U;
constexpr std::uint64_t kRoot = 0x10000;
constexpr std::uint64_t kKernel = 0xffff'ffff'8100'0000;

class PageWalk : public testing::Test {
 protected:
  [[nodiscard]] std::uint64_t lead(const Paging& paging, std::uint64_t addr) const {
    const auto found = walk(memory_, paging, addr);
    return found ? raw(found->addr) : kNowhere;
  }
  static constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

  const std::array<GuestRange, 1> ranges_{GuestRange{GuestAddr{0}, kRam}};
  GuestMemory memory_{ranges_};
  PageTables tables_{memory_, kRoot};
};

TEST_F(PageWalk, WithoutPagingAddressesArePhysical) {
  EXPECT_EQ(lead({}, 0x1234), 0x1234U);
  EXPECT_EQ(lead({}, 0xffff'ffff'ffff'ffff), 0xffff'ffff'ffff'ffffU);
  EXPECT_EQ(walk(memory_, {}, 0x1234)->page_size, 0x1000U);
}

TEST_F(PageWalk, FindsPagesOfEverySizeInLongMode) {
  const auto paging = long_mode(kRoot);
  tables_.map(kKernel, 0x20'0000, 21);
  tables_.map(kKernel + 0x20'0000, 0x5000);
  tables_.map(0xffff'8880'4000'0000, 0x1'4000'0000, 30);
  EXPECT_EQ(lead(paging, kKernel + 0x12345), 0x21'2345U);
  EXPECT_EQ(walk(memory_, paging, kKernel)->page_size, 0x20'0000U);
  EXPECT_EQ(lead(paging, kKernel + 0x20'0fff), 0x5fffU);
  EXPECT_EQ(lead(paging, kKernel + 0x20'1000), kNowhere);
  EXPECT_EQ(lead(paging, 0xffff'8880'7fff'ffff), 0x1'7fff'ffffU) << "outside RAM, but that is where it leads";
  EXPECT_EQ(walk(memory_, paging, 0xffff'8880'4000'0000)->page_size, 0x4000'0000U);
}

TEST_F(PageWalk, FindsThemInFiveLevels) {
  PageTables five{memory_, 0x40000, 5};
  auto paging = long_mode(0x40000);
  paging.cr4 |= 0x1000;
  five.map(0xff11'0000'0000'0000, 0x20'0000, 21);
  five.map(kKernel, 0x6000);
  EXPECT_EQ(lead(paging, 0xff11'0000'0000'0042), 0x20'0042U);
  EXPECT_EQ(lead(paging, kKernel + 1), 0x6001U);
  EXPECT_EQ(lead(paging, 0xfe11'0000'0000'0000), kNowhere) << "a bit 57 that is not bit 56's";
  paging.cr4 &= ~0x1000U;
  EXPECT_EQ(lead(paging, 0xff11'0000'0000'0042), kNowhere) << "with four levels not canonical";
}

TEST_F(PageWalk, FindsThemInPae) {
  PageTables pae{memory_, 0x40000, 3};
  const Paging paging{.cr0 = 0x8000'0001, .cr3 = 0x40000, .cr4 = 0x20, .efer = 0x800};
  pae.map(0xc010'0000, 0x7000, 12, PageTables::kPresent | PageTables::kNoExecute);
  pae.map(0xc020'0000, 0x20'0000, 21, PageTables::kPresent | PageTables::kUser | PageTables::kWritable);
  EXPECT_EQ(lead(paging, 0xc010'0123), 0x7123U);
  EXPECT_EQ(lead(paging, 0xc03f'ffff), 0x3f'ffffU);
  EXPECT_FALSE(walk(memory_, paging, 0xc010'0000)->executable);
  EXPECT_TRUE(walk(memory_, paging, 0xc020'0000)->writable);
  EXPECT_TRUE(walk(memory_, paging, 0xc020'0000)->user);
  EXPECT_EQ(lead(paging, 0x1'c010'0123), kNowhere) << "more than 32 bits";
  EXPECT_EQ(lead(paging, 0x123), kNowhere);
}

TEST_F(PageWalk, FindsThemIn32Bit) {
  Paging paging{.cr0 = 0x8000'0001, .cr3 = 0x40000, .cr4 = 0x10, .efer = 0};
  ASSERT_TRUE(memory_.write(GuestAddr{0x40000 + 0x300 * 4}, std::uint32_t{0x41003}));
  ASSERT_TRUE(memory_.write(GuestAddr{0x41000 + 0x100 * 4}, std::uint32_t{0x9001}));
  ASSERT_TRUE(memory_.write(GuestAddr{0x40000 + 0x301 * 4}, std::uint32_t{0x0040'0083}));
  ASSERT_TRUE(memory_.write(GuestAddr{0x40000 + 0x302 * 4}, std::uint32_t{0x0040'2083}));  // PSE-36: bit 32
  ASSERT_TRUE(memory_.write(GuestAddr{0x40000 + 0x303 * 4}, std::uint32_t{0x0060'0083}));  // bit 21: reserved
  EXPECT_EQ(lead(paging, 0xc010'0abc), 0x9abcU);
  EXPECT_FALSE(walk(memory_, paging, 0xc010'0abc)->writable);
  EXPECT_EQ(lead(paging, 0xc040'0123), 0x40'0123U);
  EXPECT_EQ(walk(memory_, paging, 0xc040'0123)->page_size, 0x40'0000U);
  EXPECT_EQ(lead(paging, 0xc080'0123), 0x1'0040'0123U);
  EXPECT_EQ(lead(paging, 0xc0c0'0123), kNowhere);
  paging.cr4 = 0;  // without PSE the bit means nothing, and the entry leads to a table (of zeros here)
  EXPECT_EQ(lead(paging, 0xc040'0123), kNowhere);
}

TEST_F(PageWalk, CollectsPermissionsFromEveryLevel) {
  const auto paging = long_mode(kRoot);
  tables_.map(kKernel, 0x5000, 12, PageTables::kPresent | PageTables::kUser | PageTables::kWritable);
  EXPECT_TRUE(walk(memory_, paging, kKernel)->writable);
  EXPECT_TRUE(walk(memory_, paging, kKernel)->user);
  EXPECT_TRUE(walk(memory_, paging, kKernel)->executable);
  const auto above = tables_.entry_at(kKernel, 21);
  tables_.put(above, (tables_.get(above) & ~(PageTables::kWritable | PageTables::kUser)) | PageTables::kNoExecute);
  EXPECT_FALSE(walk(memory_, paging, kKernel)->writable);
  EXPECT_FALSE(walk(memory_, paging, kKernel)->user);
  EXPECT_FALSE(walk(memory_, paging, kKernel)->executable);
}

TEST_F(PageWalk, RefusesWhatIsNotCanonical) {
  const auto paging = long_mode(kRoot);
  tables_.map(0, 0x5000);
  tables_.map(0xffff'8000'0000'0000, 0x6000);
  EXPECT_EQ(lead(paging, 0xffff'8000'0000'0000), 0x6000U);
  EXPECT_EQ(lead(paging, 0x0000'8000'0000'0000), kNowhere);
  EXPECT_EQ(lead(paging, 0x8000'0000'0000'0000), kNowhere);
  EXPECT_EQ(lead(paging, 0x0001'0000'0000'0000), kNowhere);
}

TEST_F(PageWalk, RefusesReservedBits) {
  auto paging = long_mode(kRoot);
  tables_.map(kKernel, 0x20'0000 | 0x4000, 21);  // an address that no page of 2 MiB has
  EXPECT_EQ(lead(paging, kKernel), kNowhere);
  tables_.map(kKernel, 0x20'0000 | 0x1000, 21);  // bit 12 is the memory type
  EXPECT_EQ(lead(paging, kKernel), 0x20'0000U);
  tables_.map(0xffff'8880'0000'0000, 0x20'0000, 30);
  EXPECT_EQ(lead(paging, 0xffff'8880'0000'0000), kNowhere);
  const auto top = tables_.entry_at(kKernel, 39);
  tables_.put(top, tables_.get(top) | PageTables::kLarge);
  EXPECT_EQ(lead(paging, kKernel), kNowhere) << "no page is that large";
  tables_.map(0x1000, 0x5000, 12, PageTables::kPresent | PageTables::kNoExecute);
  EXPECT_EQ(lead(paging, 0x1000), 0x5000U);
  paging.efer &= ~0x800U;
  EXPECT_EQ(lead(paging, 0x1000), kNowhere) << "NX without EFER.NXE is reserved";
}

TEST_F(PageWalk, SurvivesHostileTables) {
  auto paging = long_mode(kRoot);
  // Every level is the root itself: as Linux never does, but as a guest may. It ends after four steps.
  for (std::uint64_t i = 0; i < 512; ++i) {
    tables_.put(kRoot + i * 8, kRoot | PageTables::kPresent);
  }
  EXPECT_EQ(lead(paging, 0x1234), kRoot + 0x234);
  tables_.put(kRoot, kRam | PageTables::kPresent);  // a table past RAM
  EXPECT_EQ(lead(paging, 0x1234), kNowhere);
  tables_.put(kRoot, PageTables::kFrame | PageTables::kPresent);
  EXPECT_EQ(lead(paging, 0x1234), kNowhere);
  paging.cr3 = ~std::uint64_t{0};
  EXPECT_EQ(lead(paging, 0x1234), kNowhere);
  paging.cr3 = kRam - 0x1000;  // all zeros
  EXPECT_EQ(lead(paging, 0x1234), kNowhere);
}

TEST_F(PageWalk, IgnoresWhatElseIsInCr3) {
  tables_.map(kKernel, 0x5000);
  EXPECT_EQ(lead(long_mode(kRoot | 0x8000'0000'0000'0fff), kKernel), 0x5000U) << "PCID, and the bit that keeps the TLB";
  EXPECT_EQ(lead(long_mode(kRoot | Paging::kUserTable), kKernel), kNowhere);
  EXPECT_EQ(lead(long_mode(kRoot | Paging::kUserTable).with_kernel_table(), kKernel), 0x5000U);
}

}  // namespace
}  // namespace martlet
