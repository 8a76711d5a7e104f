#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/queue.h"
#include "virtqueue_support.h"

namespace martlet::virtio {
namespace {

struct Virtqueue : EachTable {};
INSTANTIATE_TEST_SUITE_P(Rings, Virtqueue, each_table(), name_of_table);

TEST_P(Virtqueue, CarriesARequestThereAndBack) {
  EXPECT_FALSE(queue->pop());
  const auto id = chain().readable("hel").readable("lo").writable(3).writable(2).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(text_of(request->readable()), "hello");
  EXPECT_EQ(request->readable().size(), 2U);
  EXPECT_EQ(request->writable().size(), 2U);
  EXPECT_EQ(request->readable_bytes(), 5U);
  EXPECT_EQ(request->writable_bytes(), 5U);
  EXPECT_FALSE(queue->pop());
  EXPECT_FALSE(driver.take_used());
  fill(*request, 'x');
  queue->complete(std::move(*request), 4);
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, id);
  EXPECT_EQ(used->written, 4U);
  EXPECT_EQ(used->text(), "xxxx");
  EXPECT_FALSE(driver.take_used());
}

TEST_P(Virtqueue, BuffersMayLieInAnyRegion) {
  driver.chain()
      .raw({.addr = FakeDriver::kHighRam + FakeDriver::kHighRamSize - 8, .len = 8})
      .raw({.addr = 0, .len = 8, .flags = kWrite})
      .submit();
  const auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->readable()[0].data(), driver.memory().regions()[1].bytes.last(8).data());
  EXPECT_EQ(request->writable()[0].data(), driver.memory().regions()[0].bytes.data());
}

TEST_P(Virtqueue, CompletesInAnyOrder) {
  std::vector<std::uint16_t> ids;
  std::vector<DescriptorChain> requests;
  for (const char* const text : {"a", "b", "c", "d"}) {
    ids.push_back(chain().readable(text).writable(1).submit());
    requests.push_back(*queue->pop());
  }
  for (const std::size_t turn : {2U, 0U, 3U, 1U}) {
    fill(requests[turn], text_of(requests[turn].readable())[0]);
    queue->complete(std::move(requests[turn]), 1);
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, ids[turn]);
    EXPECT_EQ(used->text(), std::string(1, static_cast<char>('a' + turn)));
  }
  serves_the_next();
}

TEST_P(Virtqueue, TakesAChainAsLongAsTheQueue) {
  auto longest = chain();
  for (int i = 0; i < 16; ++i) {
    longest.readable("x");
  }
  longest.submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->readable().size(), 16U);
  queue->complete(std::move(*request), 0);
  ASSERT_TRUE(driver.take_used());
  serves_the_next();
}

TEST_P(Virtqueue, FillsUpAndDrains) {
  for (int round = 0; round < 5; ++round) {
    while (driver.free_descriptors() > 0) {
      driver.chain().writable(1).submit();
    }
    std::vector<DescriptorChain> requests;
    while (auto request = queue->pop()) {
      requests.push_back(std::move(*request));
    }
    ASSERT_EQ(requests.size(), 16U);
    while (!requests.empty()) {
      queue->complete(std::move(requests.back()), 1);
      requests.pop_back();
    }
    while (driver.take_used()) {
    }
    ASSERT_EQ(driver.in_flight(), 0U);
    serves_the_next();
  }
}

TEST_P(Virtqueue, BuffersOfNoBytesAreLeftOut) {
  chain().readable("").readable("abc").raw({.addr = FakeDriver::kHole, .len = 0}).writable(0).writable(2).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(text_of(request->readable()), "abc");
  EXPECT_EQ(request->readable().size(), 1U);
  EXPECT_EQ(request->writable().size(), 1U);
  queue->complete(std::move(*request), 2);
  EXPECT_EQ(driver.take_used()->written, 2U);

  chain().writable(0).submit();  // a request for the device to judge, not for the ring
  request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->readable().empty() && request->writable().empty());
}

TEST_P(Virtqueue, AChainThatIsDestroyedGoesBackEmpty) {
  const auto id = chain().writable(4).submit();
  queue->pop().reset();
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, id);
  EXPECT_EQ(used->written, 0U);
  serves_the_next();
}

TEST_P(Virtqueue, AChainIsCompletedOnceWhereverItMoves) {
  const auto first_id = chain().writable(1).submit();
  const auto second_id = chain().writable(1).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  DescriptorChain moved{std::move(*request)};
  moved = *queue->pop();  // the first goes back
  auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, first_id);
  EXPECT_FALSE(driver.take_used());
  queue->complete(std::move(moved), 1);
  queue->complete(std::move(moved), 1);     // NOLINT(bugprone-use-after-move): nothing is left to complete
  queue->complete(std::move(*request), 1);  // NOLINT(bugprone-use-after-move)
  used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, second_id);
  EXPECT_FALSE(driver.take_used());
}

TEST_P(Virtqueue, LeavesAnotherQueuesChainAlone) {
  const auto other = driver.make_queue(1);
  driver.chain(1).writable(1).submit();
  auto request = other->pop();
  ASSERT_TRUE(request);
  queue->complete(std::move(*request), 1);
  EXPECT_FALSE(driver.take_used(0));
  EXPECT_FALSE(driver.take_used(1));
  other->complete(std::move(*request), 1);  // NOLINT(bugprone-use-after-move): it was not taken
  EXPECT_TRUE(driver.take_used(1));
  serves_the_next();
}

TEST_P(Virtqueue, NeverClaimsMoreThanThereIsRoomFor) {
  chain().readable("abc").writable(4).submit();
  queue->complete(*queue->pop(), 5);
  EXPECT_EQ(driver.take_used()->written, 4U);
}

TEST_P(Virtqueue, CompletesSeveralTogetherInOrder) {
  const std::array ids{chain().writable(4).submit(), chain().writable(4).submit(), chain().writable(4).submit()};
  std::vector<VirtQueue::Completion> completions;
  for (std::uint32_t i = 0; i < 3; ++i) {
    completions.push_back({*queue->pop(), i + 1});
  }
  queue->complete_together(completions);
  for (std::uint32_t i = 0; i < 3; ++i) {
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, ids[i]);
    EXPECT_EQ(used->written, i + 1);
  }
  queue->complete_together(completions);  // spent
  queue->complete_together({});
  EXPECT_FALSE(driver.take_used());
  queue->notify();
  EXPECT_EQ(driver.interrupts(), 1U);
  serves_the_next();
}

TEST_P(Virtqueue, ManyQueuesDoNotMeet) {
  const auto other = driver.make_queue(3);
  driver.chain(3).readable("three").submit();
  EXPECT_FALSE(queue->pop());
  auto request = other->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(text_of(request->readable()), "three");
  other->complete(std::move(*request), 0);
  other->notify();
  EXPECT_EQ(driver.interrupts(3), 1U);
  EXPECT_EQ(driver.interrupts(0), 0U);
  EXPECT_TRUE(driver.take_used(3));
}

struct VirtqueueSetup : EachRing {
  std::unique_ptr<VirtQueue> make(const QueueSetup& setup) { return VirtQueue::make(driver.memory(), setup, driver); }
  QueueSetup good = driver.setup();
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtqueueSetup, each_ring(), name_of_ring);

TEST_P(VirtqueueSetup, SizesAreChecked) {
  const bool split = ring == Ring::Split;
  for (const std::uint16_t size : std::initializer_list<std::uint16_t>{1, 2, 16, 1024, 32768}) {
    good.size = size;
    EXPECT_TRUE(make(good)) << size;
  }
  for (const std::uint16_t size : std::initializer_list<std::uint16_t>{0, 32769, 65535}) {
    good.size = size;
    EXPECT_FALSE(make(good)) << size;
  }
  for (const std::uint16_t size : std::initializer_list<std::uint16_t>{3, 255, 32767}) {
    good.size = size;
    EXPECT_EQ(make(good) == nullptr, split) << size;  // §2.8.10.1: packed rings may have any size
  }
}

TEST_P(VirtqueueSetup, RingsLieInGuestMemoryAndAligned) {
  ASSERT_TRUE(make(good));
  for (const auto area : {&QueueSetup::descriptors, &QueueSetup::driver, &QueueSetup::device}) {
    for (const auto addr :
         std::initializer_list<std::uint64_t>{FakeDriver::kHole, FakeDriver::kLowRam, ~0ULL << 12U,
                                              FakeDriver::kHighRam + FakeDriver::kHighRamSize, raw(good.*area) + 1}) {
      auto setup = good;
      setup.*area = GuestAddr{addr};
      EXPECT_FALSE(make(setup)) << std::hex << addr;
    }
  }
  for (const auto& [area, alignment] :
       {std::pair{&QueueSetup::descriptors, 16U}, std::pair{&QueueSetup::driver, ring == Ring::Split ? 2U : 4U},
        std::pair{&QueueSetup::device, 4U}}) {
    auto setup = good;
    setup.*area = GuestAddr{0x10000 + alignment};
    EXPECT_TRUE(make(setup)) << alignment;
    setup.*area = GuestAddr{0x10000 + alignment / 2};
    EXPECT_FALSE(make(setup)) << alignment;
  }
}

TEST_P(VirtqueueSetup, NoRingReachesBeyondItsRegion) {
  const bool split = ring == Ring::Split;
  const std::uint64_t driver_bytes = split ? 6 + 16 * 2 : 4, device_bytes = split ? 6 + 16 * 8 : 4;
  for (const auto& [area, bytes] :
       {std::pair{&QueueSetup::descriptors, std::uint64_t{256}}, std::pair{&QueueSetup::driver, driver_bytes},
        std::pair{&QueueSetup::device, device_bytes}}) {
    auto setup = good;
    const std::uint64_t fits = (FakeDriver::kLowRam - bytes) & ~std::uint64_t{15};
    setup.*area = GuestAddr{fits};
    EXPECT_TRUE(make(setup));
    setup.*area = GuestAddr{fits + 16};
    EXPECT_FALSE(make(setup));
  }
}

}  // namespace
}  // namespace martlet::virtio
