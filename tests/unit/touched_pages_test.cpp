#include "vmm/base/touched_pages.h"

#include <gtest/gtest.h>

#include <vector>

namespace martlet {
namespace {

constexpr std::uint64_t kMiB = 1U << 20U;
constexpr std::uint64_t kHugePage = 2 * kMiB;
constexpr std::uint64_t k4GiB = std::uint64_t{4} << 30U;

class TouchedPages : public testing::TestWithParam<GuestMemory::Backing> {
 protected:
  std::vector<GuestRange> touched() const {
    std::vector<GuestRange> runs;
    visit_touched(memory, [&](const GuestRange& run) {
      runs.push_back(run);
      return true;
    });
    return runs;
  }

  GuestMemory memory{std::vector<GuestRange>{{GuestAddr{0}, 256 * kMiB}, {GuestAddr{k4GiB}, 128 * kMiB}}, GetParam()};
};

TEST_P(TouchedPages, AFreshGuestHasNone) { EXPECT_TRUE(touched().empty()); }

TEST_P(TouchedPages, AreThoseThatWereWritten) {
  const std::vector<std::uint64_t> addrs{0, 100 * kMiB + 8, 256 * kMiB - 1, k4GiB, k4GiB + 64 * kMiB};
  for (const auto addr : addrs) {
    ASSERT_TRUE(memory.write(GuestAddr{addr}, std::byte{1}));
  }
  const auto runs = touched();
  ASSERT_EQ(runs.size(), addrs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_TRUE(runs[i].contains({GuestAddr{addrs[i]}, 1})) << i;
    EXPECT_LE(runs[i].size, kHugePage) << i;
  }
  EXPECT_EQ(touched(), runs) << "asking changes nothing";
}

TEST_P(TouchedPages, NeighboursAreOneRun) {
  for (std::uint64_t addr = 10 * kMiB; addr < 90 * kMiB; addr += 4096) {
    ASSERT_TRUE(memory.write(GuestAddr{addr}, std::byte{1}));
  }
  ASSERT_EQ(touched().size(), 1U);
  EXPECT_EQ(touched().front(), (GuestRange{GuestAddr{10 * kMiB}, 80 * kMiB}));
}

TEST_P(TouchedPages, StopWhenToldTo) {
  ASSERT_TRUE(memory.write(GuestAddr{0}, std::byte{1}));
  ASSERT_TRUE(memory.write(GuestAddr{k4GiB}, std::byte{1}));
  int visits = 0;
  visit_touched(memory, [&](const GuestRange&) { return ++visits > 1; });
  EXPECT_EQ(visits, 1);
}

INSTANTIATE_TEST_SUITE_P(Backings, TouchedPages,
                         testing::Values(GuestMemory::Backing::Anonymous, GuestMemory::Backing::Memfd),
                         [](const auto& backing) {
                           return backing.param == GuestMemory::Backing::Memfd ? "Memfd" : "Anonymous";
                         });

}  // namespace
}  // namespace martlet
