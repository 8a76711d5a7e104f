// Who tells whom, and when not: flags, event index, event suppression (virtio 1.2 §2.7.7, §2.7.10, §2.8.14).

#include <gtest/gtest.h>

#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "virtqueue_support.h"

namespace martlet::virtio {
namespace {

struct Notifications : EachRing {
  explicit Notifications(std::uint64_t features = 0) : EachRing{{.size = 16, .features = features}} {}
  void serve_one() {
    driver.chain().writable(1).submit();
    queue->complete(*queue->pop(), 1);
  }
  /// Did the device interrupt since the last look?
  bool interrupted() {
    queue->notify();
    return std::exchange(seen_, driver.interrupts()) != driver.interrupts();
  }

 private:
  unsigned seen_ = 0;
};

// --- With flags alone

struct VirtqueueFlags : Notifications {};
INSTANTIATE_TEST_SUITE_P(Rings, VirtqueueFlags, each_ring(), name_of_ring);

TEST_P(VirtqueueFlags, OneInterruptForABatch) {
  EXPECT_FALSE(interrupted()) << "nothing was completed";
  serve_one();
  serve_one();
  EXPECT_EQ(driver.interrupts(), 0U) << "not before notify()";
  queue->notify();
  queue->notify();
  EXPECT_EQ(driver.interrupts(), 1U);
}

TEST_P(VirtqueueFlags, NoneWhenTheDriverWantsNone) {
  driver.no_interrupts();
  serve_one();
  EXPECT_FALSE(interrupted());
  driver.want_interrupts();
  EXPECT_FALSE(interrupted()) << "the driver looked at those itself";
  serve_one();
  EXPECT_TRUE(interrupted());
}

TEST_P(VirtqueueFlags, KicksAreWantedUnlessDisabled) {
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
  EXPECT_FALSE(driver.kick_wanted()) << "nothing was added";
  queue->disable_notifications();
  driver.chain().writable(1).submit();
  EXPECT_FALSE(driver.kick_wanted());
  EXPECT_TRUE(queue->enable_notifications()) << "two wait";
  while (queue->pop()) {
  }
  EXPECT_FALSE(queue->enable_notifications());
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
}

TEST_P(VirtqueueFlags, EventsAtADescriptorNeedTheFeature) {
  if (ring == Ring::Packed) {
    driver.write(driver.setup().driver, PackedEvent{.offset_wrap = 9, .flags = kEventAtDescriptor});
    serve_one();
    EXPECT_TRUE(interrupted());
    driver.write(driver.setup().driver, PackedEvent{.offset_wrap = 9, .flags = 3});  // reserved: rather one too many
    serve_one();
    EXPECT_TRUE(interrupted());
  } else {
    driver.write(driver.setup().driver + 4 + 16 * 2, std::uint16_t{9});
    serve_one();
    EXPECT_TRUE(interrupted());
  }
}

// --- With the event index

struct VirtqueueEvents : Notifications {
  VirtqueueEvents() : Notifications{kEventIndex} {}
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtqueueEvents, each_ring(), name_of_ring);

TEST_P(VirtqueueEvents, InterruptComesWithTheEventAndOnce) {
  driver.interrupt_after(3);
  serve_one();
  EXPECT_FALSE(interrupted());
  serve_one();
  EXPECT_FALSE(interrupted());
  serve_one();
  EXPECT_TRUE(interrupted());
  serve_one();
  EXPECT_FALSE(interrupted()) << "the event has passed";
}

TEST_P(VirtqueueEvents, ABatchThatContainsTheEventInterrupts) {
  driver.interrupt_after(3);
  for (int i = 0; i < 5; ++i) {
    serve_one();
  }
  EXPECT_TRUE(interrupted());
}

TEST_P(VirtqueueEvents, NoneWhenTheDriverWantsNone) {
  driver.no_interrupts();
  for (int i = 0; i < 100; ++i) {
    serve_one();
    EXPECT_FALSE(interrupted());
    ASSERT_TRUE(driver.take_used());
  }
  driver.want_interrupts();
  serve_one();
  EXPECT_TRUE(interrupted());
}

TEST_P(VirtqueueEvents, ANewQueueListens) {
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
}

TEST_P(VirtqueueEvents, KickIsWantedOnlyAfterTheDeviceFoundNothing) {
  EXPECT_FALSE(queue->pop());
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
  driver.chain().writable(1).submit();
  EXPECT_FALSE(driver.kick_wanted()) << "it has been told";
  auto first = queue->pop();
  driver.chain().writable(1).submit();
  EXPECT_FALSE(driver.kick_wanted()) << "it is still at work";
  auto second = queue->pop();
  auto third = queue->pop();
  ASSERT_TRUE(first && second && third);
  EXPECT_FALSE(queue->pop());
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
}

TEST_P(VirtqueueEvents, DisabledStaysSilentThoughNothingIsFound) {
  queue->disable_notifications();
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(queue->pop());
    serve_one();
    EXPECT_FALSE(driver.kick_wanted());
    ASSERT_TRUE(driver.take_used());
  }
  driver.chain().writable(1).submit();
  EXPECT_TRUE(queue->enable_notifications());
  EXPECT_TRUE(queue->pop());
  EXPECT_FALSE(queue->enable_notifications());
  std::ignore = driver.kick_wanted();  // of what came while disabled
  driver.chain().writable(1).submit();
  EXPECT_TRUE(driver.kick_wanted());
}

// Random batches, over several wraps of 16 bits and many of the ring: an interrupt exactly when the event is
// among what was completed, a kick exactly when the queue was empty.
TEST_P(VirtqueueEvents, HoldAcrossEveryWrap) {
  std::mt19937 random{1};
  const auto up_to = [&](int most) { return std::uniform_int_distribution{1, most}(random); };
  int served = 0, interrupts = 0;
  int until_event = 1;
  EXPECT_FALSE(queue->pop());
  driver.interrupt_after(1);
  while (served < 200'000) {
    const int batch = up_to(16);
    for (int i = 0; i < batch; ++i) {
      driver.chain().raw({.addr = 0, .len = 1, .flags = kWrite}).submit();
      ASSERT_EQ(driver.kick_wanted(), i == 0);
    }
    while (auto request = queue->pop()) {
      queue->complete(std::move(*request), 1);
    }
    ASSERT_EQ(interrupted(), until_event > 0 && until_event <= batch) << served;
    interrupts += until_event > 0 && until_event <= batch ? 1 : 0;
    until_event -= batch;
    while (driver.take_used()) {
      ++served;
    }
    if (until_event <= 0) {
      until_event = up_to(16);
      driver.interrupt_after(static_cast<std::uint16_t>(until_event));
    }
  }
  EXPECT_GT(interrupts, 1000);
}

// A device that did not call notify() for 65536 completions: their number is 0 in 16 bits, yet it has news.
TEST_P(VirtqueueEvents, ManyCompletionsAreNotNone) {
  for (int i = 0; i < 65536; ++i) {
    driver.chain().raw({.addr = 0, .len = 1, .flags = kWrite}).submit();
    queue->complete(*queue->pop(), 1);
    ASSERT_TRUE(driver.take_used());
  }
  EXPECT_TRUE(interrupted());
}

}  // namespace
}  // namespace martlet::virtio
