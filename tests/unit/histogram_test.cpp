#include "vmm/base/histogram.h"

#include <gtest/gtest.h>

#include <limits>

namespace martlet {
namespace {

TEST(Histogram, QuantilesAreRightWithinAnEighthOfAnOctave) {
  Histogram histogram;
  for (std::uint64_t i = 1; i <= 100'000; ++i) {
    histogram.add(i * 10);
  }
  for (const unsigned percent : {1U, 25U, 50U, 90U, 99U}) {
    const auto exact = 10'000ULL * percent;
    const auto found = histogram.quantile(percent);
    EXPECT_GE(found, exact) << percent;
    EXPECT_LE(found, exact + exact / 8 + 10) << percent;
  }
  EXPECT_EQ(histogram.quantile(100), 1'000'000U);
  EXPECT_EQ(histogram.most(), 1'000'000U);
  EXPECT_EQ(histogram.count(), 100'000U);
}

TEST(Histogram, SmallNumbersAreExact) {
  Histogram histogram;
  for (std::uint64_t i = 0; i < 8; ++i) {
    histogram.add(i);
  }
  EXPECT_EQ(histogram.quantile(50), 3U);
  EXPECT_EQ(histogram.quantile(100), 7U);
}

TEST(Histogram, EmptyOneKnowsNothingAndTheLongestIsKept) {
  Histogram histogram;
  EXPECT_EQ(histogram.quantile(50), 0U);
  EXPECT_EQ(histogram.quantile(99), 0U);
  histogram.add(std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(histogram.most(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_GT(histogram.quantile(50), 0U);
}

}  // namespace
}  // namespace martlet
