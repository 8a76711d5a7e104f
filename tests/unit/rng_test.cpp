#include "devices/virtio/rng.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/virtio_driver.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

struct RngTest : testing::TestWithParam<Ring> {
  RngTest() {
    rng.start(driver.features(), driver);
    rng.start_queue(0, driver.make_queue(0), kick.get());
  }
  ~RngTest() override { rng.stop(); }

  FakeDriver driver{{.size = 64, .ring = GetParam(), .features = kInOrder | kIndirectDescriptors}};
  Fd kick = make_eventfd();
  Rng rng;
};

INSTANTIATE_TEST_SUITE_P(Rings, RngTest, testing::Values(Ring::Split, Ring::Packed),
                         [](const auto& tested) { return tested.param == Ring::Split ? "Split" : "Packed"; });

/// 0xcc is what buffers hold before; 10 or more of them in a row are no accident.
bool untouched(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0xcc}; });
}

TEST_P(RngTest, FillsWhatIsAskedFor) {
  const auto id = driver.chain().writable(64).writable(1000).submit();
  rng.notified(0);
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, id);
  EXPECT_EQ(used->written, 1064U);
  EXPECT_FALSE(untouched(std::span{used->data[0]}.last(16)));
  EXPECT_FALSE(untouched(std::span{used->data[1]}.first(16)));
  EXPECT_FALSE(untouched(std::span{used->data[1]}.last(16)));
  EXPECT_EQ(driver.interrupts(), 1U);
}

TEST_P(RngTest, TwoRequestsGetDifferentBytes) {
  driver.chain().writable(32).submit();
  driver.chain().writable(32).submit();
  rng.notified(0);
  const auto one = driver.take_used();
  const auto two = driver.take_used();
  ASSERT_TRUE(one && two);
  EXPECT_NE(one->data, two->data);
}

TEST_P(RngTest, AGreedyRequestIsFilledUpToTheCap) {
  driver.chain().writable(Rng::kMostPerRequest - 10).writable(20).writable(1U << 20U).submit();
  driver.chain().writable(8).submit();
  rng.notified(0);
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, Rng::kMostPerRequest);
  EXPECT_FALSE(untouched(std::span{used->data[1]}.first(10)));
  EXPECT_TRUE(untouched(std::span{used->data[1]}.last(10))) << "beyond what `written` tells";
  EXPECT_TRUE(untouched(used->data[2]));
  const auto next = driver.take_used();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->written, 8U);
}

TEST_P(RngTest, ARequestWithoutRoomComesBackEmpty) {
  driver.chain().readable("here is some entropy for you").submit();
  driver.chain().readable("and").writable(16).submit();
  rng.notified(0);
  const auto bad = driver.take_used();
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->written, 0U);
  const auto good = driver.take_used();
  ASSERT_TRUE(good);
  EXPECT_EQ(good->written, 16U);
}

TEST_P(RngTest, AFloodOfRequestsLetsTheLoopBreathe) {
  for (int i = 0; i < 40; ++i) {
    driver.chain().writable(4).submit();
  }
  int turns = 0;
  do {
    ++turns;
    rng.notified(0);
  } while (drain_counter(kick.get()) != 0);
  EXPECT_EQ(turns, 3);
  for (int i = 0; i < 40; ++i) {
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 4U);
  }
}

TEST_P(RngTest, ServesWhatWaitedBeforeTheQueueStartedAndNothingAfterItStopped) {
  rng.stop_queue(0);
  rng.notified(0);
  auto queue = driver.make_queue(0);
  driver.chain().writable(4).submit();
  rng.start_queue(0, std::move(queue), kick.get());
  EXPECT_TRUE(driver.take_used());
  rng.stop();
  driver.chain().writable(4).submit();
  rng.notified(0);
  EXPECT_FALSE(driver.take_used());
}

TEST(Rng, HasNoConfiguration) {
  Rng rng;
  std::array<std::byte, 8> config{};
  config.fill(std::byte{1});
  rng.read_config(4, config);
  EXPECT_EQ(config, (std::array<std::byte, 8>{}));
  rng.write_config(0, config);
}

}  // namespace
}  // namespace martlet::virtio
