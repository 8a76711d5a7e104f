#include <gtest/gtest.h>

#include "devices/virtio/rate_limit.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

using namespace std::chrono_literals;
using Clock = TokenBucket::Clock;

TEST(TokenBucket, GivesTheBurstThenTheRate) {
  const Clock::time_point start{};
  TokenBucket bucket{100, 10, start};
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(bucket.delay(start), 0ns) << i;
    bucket.take(1);
  }
  const auto wait = bucket.delay(start);
  EXPECT_GE(wait, 10ms);
  EXPECT_LE(wait, 10ms + 10ns);
  EXPECT_GT(bucket.delay(start + 9ms), 0ns);
  EXPECT_EQ(bucket.delay(start + wait), 0ns);
  // However long it rests, no more than the burst is saved.
  const auto later = start + 1h;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(bucket.delay(later), 0ns);
    bucket.take(1);
  }
  EXPECT_GT(bucket.delay(later), 0ns);
}

TEST(TokenBucket, WhatIsLargerThanTheBurstIsLateNotStuck) {
  const Clock::time_point start{};
  TokenBucket bucket{1000, 1, start};
  EXPECT_EQ(bucket.delay(start), 0ns);
  bucket.take(5000);
  EXPECT_GT(bucket.delay(start + 4999ms), 0ns);
  EXPECT_EQ(bucket.delay(start + 5001ms), 0ns);
}

TEST(TokenBucket, KeepsItsRateOverTime) {
  Clock::time_point now{};
  TokenBucket bucket{1000, 0, now};
  int taken = 0;
  const auto end = now + 10s;
  while (now < end) {
    const auto wait = bucket.delay(now);
    if (wait == 0ns) {
      bucket.take(1);
      ++taken;
    } else {
      now += wait;
    }
  }
  EXPECT_NEAR(taken, 10'000 + 100, 2);
}

TEST(TokenBucket, WithoutARateThereIsNoLimit) {
  const Clock::time_point start{};
  TokenBucket bucket{0, 0, start};
  bucket.take(~0ULL);
  EXPECT_EQ(bucket.delay(start), 0ns);
}

TEST(TokenBucket, BearsAClockThatGoesBackAndHugeDebts) {
  const Clock::time_point start{1h};
  TokenBucket bucket{1, 1, start};
  bucket.take(~0ULL);
  EXPECT_GT(bucket.delay(start - 30min), 0ns);
  EXPECT_LE(bucket.delay(start), 24h);
}

TEST(RateLimits, AreParsed) {
  Options options{"rate=100M,burst=1M,iops=500,iops_burst=50", "--disk"};
  const auto limits = RateLimits::parse(options);
  EXPECT_EQ(limits.bytes, 100ULL << 20U);
  EXPECT_EQ(limits.burst, 1ULL << 20U);
  EXPECT_EQ(limits.operations, 500U);
  EXPECT_EQ(limits.operations_burst, 50U);
  options.finish();
  for (const auto* text : {"burst=1M", "iops_burst=2", "iops=0", "rate=2000T", "iops=1x"}) {
    Options bad{text, "--disk"};
    EXPECT_THROW(static_cast<void>(RateLimits::parse(bad)), HostError) << text;
  }
}

}  // namespace
}  // namespace martlet::virtio
