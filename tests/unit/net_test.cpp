#include "devices/virtio/net.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/unit/net_fixture.h"

namespace martlet::virtio {
namespace {

class NetRings : public testing::TestWithParam<Ring> {
 protected:
  [[nodiscard]] static NetSetup setup(std::uint64_t features = kNetMergeableBuffers | kNetControlQueue,
                                      std::uint16_t pairs = 1) {
    return {.ring = GetParam(), .features = features, .pairs = pairs};
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, NetRings, testing::Values(Ring::Split, Ring::Packed),
                         [](const auto& of) { return of.param == Ring::Split ? "Split" : "Packed"; });

TEST_P(NetRings, FramesGoBothWays) {
  NetBench bench{setup()};
  bench.start_all();
  bench.offer(2000, 4);
  for (const std::size_t size : {14U, 60U, 1514U}) {
    bench.send({}, payload(size));
    bench.push(with_header({}, payload(size, 1)));
    const auto got = bench.take();
    ASSERT_FALSE(got.empty()) << size;
    EXPECT_EQ(header_of(got).num_buffers, 1);
    EXPECT_EQ(frame_of(got), payload(size, 1));
  }
  ASSERT_EQ(bench.sent().size(), 3U);
  EXPECT_EQ(bench.sent()[2], with_header({}, payload(1514)));
  const auto& statistics = bench.net->statistics();
  EXPECT_EQ(statistics.sent.frames, 3U);
  EXPECT_EQ(statistics.sent.bytes, 14U + 60 + 1514);
  EXPECT_EQ(statistics.received.frames, 3U);
  EXPECT_EQ(statistics.received.dropped + statistics.sent.dropped, 0U);
}

TEST_P(NetRings, AFrameMayBeSplitAnywhere) {
  NetBench bench{setup()};
  bench.start_all();
  const auto whole = with_header({}, payload(100));
  bench.on_loop([&] {
    auto chain = bench.driver.chain(1);
    const std::span<const std::byte> bytes{whole};
    chain.readable(bytes.first(1)).readable(bytes.subspan(1, 10)).readable(bytes.subspan(11, 2));
    chain.readable(bytes.subspan(13, 50)).readable(bytes.subspan(63)).submit();
    auto into = bench.driver.chain(0);
    into.writable(5).writable(3).writable(10).writable(1).writable(200).submit();
  });
  bench.kick(1);
  ASSERT_EQ(bench.sent().size(), 1U);
  EXPECT_EQ(bench.sent()[0], whole);
  bench.kick(0);
  bench.push(whole);
  EXPECT_EQ(frame_of(bench.take()), payload(100));
}

TEST_P(NetRings, BadFramesAreDroppedAndTheNextGoodOneGoes) {
  NetBench bench{setup(kNetControlQueue | kNetChecksum | kNetHostTso4)};
  bench.start_all();
  const NetHeader wrong[] = {{.flags = kNeedsChecksum, .csum_start = 0xfff0, .csum_offset = 0xfff0},
                             {.flags = kNeedsChecksum, .gso_type = 4, .gso_size = 1000, .csum_start = 34},
                             {.gso_type = 1, .gso_size = 1000},
                             {.flags = kNeedsChecksum, .gso_type = 1, .csum_start = 34},
                             {.gso_type = 0xff}};
  for (const auto& header : wrong) {
    bench.send(header, payload(200));
  }
  bench.send({}, payload(13));
  bench.send({}, payload(70000));
  bench.on_loop([&] {
    bench.driver.chain(1).readable(std::string_view{"short"}).submit();
    bench.driver.chain(1).writable(2000).submit();  // nothing to send at all
  });
  bench.kick(1);
  EXPECT_TRUE(bench.sent().empty());
  EXPECT_EQ(bench.net->statistics().sent.dropped, std::size(wrong) + 4);
  int completed = 0;
  while (bench.driver.take_used(1)) {
    ++completed;
  }
  EXPECT_EQ(completed, std::ssize(wrong) + 4);
  const NetHeader right{
      .flags = kNeedsChecksum, .gso_type = 1, .hdr_len = 54, .gso_size = 1000, .csum_start = 34, .csum_offset = 16};
  bench.send(right, payload(5000));
  ASSERT_EQ(bench.sent().size(), 1U);
  EXPECT_EQ(bench.sent()[0], with_header(right, payload(5000)));
}

TEST_P(NetRings, ALargeFrameSpreadsOverManyBuffers) {
  NetBench bench{setup(kNetMergeableBuffers | kNetGuestChecksum | kNetGuestTso4)};
  bench.start_all();
  const NetHeader header{
      .flags = kNeedsChecksum, .gso_type = 1, .hdr_len = 54, .gso_size = 1448, .csum_start = 34, .csum_offset = 16};
  for (unsigned round = 0; round < 4; ++round) {  // the first by way of the overflow, the others directly
    bench.offer(1536, 50);
    bench.push(with_header(header, payload(65000, round)));
    const auto got = bench.take();
    ASSERT_EQ(got.size(), sizeof header + 65000) << round;
    EXPECT_EQ(header_of(got).num_buffers, (65012 + 1535) / 1536);
    EXPECT_EQ(header_of(got).gso_size, 1448);
    EXPECT_EQ(frame_of(got), payload(65000, round));
    // A small one takes one buffer of those that were ready for more.
    bench.push(with_header({}, payload(60, round)));
    EXPECT_EQ(frame_of(bench.take()), payload(60, round));
    while (bench.driver.in_flight(0) > 0) {
      bench.push(with_header({}, payload(100)));
      EXPECT_EQ(bench.take().size(), sizeof header + 100);
    }
  }
  EXPECT_EQ(bench.net->statistics().received.dropped, 0U);
}

TEST_P(NetRings, AFrameWaitsForTheBuffersItLacks) {
  NetBench bench{setup()};
  bench.start_all();
  bench.offer(100, 3);
  bench.push(with_header({}, payload(1000)));
  EXPECT_FALSE(bench.driver.take_used(0));
  bench.offer(100, 3);
  EXPECT_FALSE(bench.driver.take_used(0));
  bench.offer(600);
  EXPECT_EQ(frame_of(bench.take()), payload(1000));
  EXPECT_EQ(bench.driver.in_flight(0), 0U);
}

TEST_P(NetRings, AFrameThatCannotFitIsDropped) {
  NetBench bench{setup()};
  bench.start_all();
  bench.offer(20, 64);  // the whole ring holds 1280 bytes
  bench.push(with_header({}, payload(1400)));
  EXPECT_EQ(bench.net->statistics().received.dropped, 1U);
  bench.push(with_header({}, payload(1000)));
  EXPECT_EQ(frame_of(bench.take()), payload(1000));
}

TEST_P(NetRings, WithoutMergeableBuffersOneMustDo) {
  NetBench bench{setup(0)};
  bench.start_all();
  bench.on_loop([&] { bench.driver.chain(0).writable(4).submit(); });  // not even a header
  bench.offer(500);
  bench.push(with_header({}, payload(489)));
  EXPECT_EQ(bench.net->statistics().received.dropped, 1U);
  bench.push(with_header({}, payload(488)));
  EXPECT_TRUE(bench.driver.take_used(0)->bytes().empty());
  EXPECT_EQ(frame_of(bench.take()), payload(488));
}

TEST_P(NetRings, WithoutBuffersTheBackendIsLeftAlone) {
  NetBench bench{setup()};
  bench.start_all();
  const int before = bench.backend->pairs_[0].receives;
  for (unsigned i = 0; i < 5; ++i) {
    bench.push(with_header({}, payload(100, i)));
  }
  EXPECT_EQ(bench.backend->pairs_[0].receives, before);
  EXPECT_TRUE(bench.driver.kick_wanted(0) || true);
  bench.offer(200, 3);
  bench.offer(200, 3);
  for (unsigned i = 0; i < 5; ++i) {
    EXPECT_EQ(frame_of(bench.take()), payload(100, i));
  }
}

TEST_P(NetRings, AFullBackendLosesNothing) {
  NetBench bench{setup()};
  bench.start_all();
  bench.on_loop([&] { bench.backend->full = true; });
  for (unsigned i = 0; i < 5; ++i) {
    bench.send({}, payload(100, i));
  }
  EXPECT_TRUE(bench.sent().empty());
  EXPECT_FALSE(bench.driver.take_used(1));
  bench.on_loop([&] { bench.backend->full = false; });
  bench.settle();
  ASSERT_EQ(bench.sent().size(), 5U);
  for (unsigned i = 0; i < 5; ++i) {
    EXPECT_EQ(frame_of(bench.sent()[i]), payload(100, i));
  }
}

TEST_P(NetRings, ABatchInterruptsOnce) {
  NetBench bench{setup()};
  bench.start_all();
  bench.offer(200, 60);
  const auto before = bench.driver.interrupts(0);
  bench.on_loop([&] {
    for (int i = 0; i < 30; ++i) {
      bench.backend->push(with_header({}, payload(100)));
    }
    for (int i = 0; i < 30; ++i) {
      bench.driver.chain(1).readable(with_header({}, payload(100))).submit();
    }
  });
  bench.settle();
  EXPECT_EQ(bench.driver.interrupts(0), before + 1);
  bench.kick(1);
  EXPECT_EQ(bench.sent().size(), 30U);
  EXPECT_EQ(bench.driver.interrupts(1), 1U);
}

/// `frames` at once, as it is when the guest was away.
void push_together(NetBench& bench, const std::vector<Frame>& frames) {
  bench.on_loop([&] {
    for (const auto& frame : frames) {
      bench.backend->push(with_header({}, frame));
    }
  });
  bench.settle();
}

/// So many frames that the device expects many. It has no buffers then, and reads again when it gets some.
void rush(NetBench& bench) {
  constexpr int kFrames = 1 + 2 + 4 + 8 + 16;
  bench.offer(2000, kFrames);
  push_together(bench, std::vector<Frame>(kFrames, payload(60)));
  for (int i = 0; i < kFrames; ++i) {
    EXPECT_EQ(frame_of(bench.take()), payload(60));
  }
}

TEST_P(NetRings, FramesThatComeTogetherStayInOrder) {
  NetBench bench{setup()};
  bench.start_all();
  unsigned seed = 0;
  for (const unsigned count : {1U, 7U, 2U, 30U, 3U, 0U, 16U, 17U}) {
    bench.offer(2000, 40 - static_cast<int>(bench.driver.in_flight(0)));
    std::vector<Frame> frames;
    while (frames.size() < count) {
      frames.push_back(payload(60 + 40 * frames.size(), ++seed));
    }
    push_together(bench, frames);
    for (const auto& frame : frames) {
      EXPECT_EQ(frame_of(bench.take()), frame);
    }
    EXPECT_FALSE(bench.driver.take_used(0));
  }
  EXPECT_EQ(bench.net->statistics().received.dropped, 0U);
}

TEST_P(NetRings, ALongFrameTakesTheBuffersOfThoseBehindIt) {
  NetBench bench{setup()};
  bench.start_all();
  rush(bench);
  push_together(bench, {payload(4000, 1), payload(300, 2), payload(60, 3)});
  bench.offer(200, 24);  // for three frames of the usual size
  EXPECT_EQ(frame_of(bench.take()), payload(4000, 1));
  EXPECT_EQ(frame_of(bench.take()), payload(300, 2));
  EXPECT_EQ(frame_of(bench.take()), payload(60, 3));
  EXPECT_EQ(bench.driver.in_flight(0), 0U);
}

TEST_P(NetRings, ALongFrameThatNeverFitsCostsThoseBehindItNothing) {
  NetBench bench{setup()};
  bench.start_all();
  rush(bench);
  push_together(bench, {payload(5000, 1), payload(1000, 2)});
  bench.offer(50, 64);  // the whole ring holds 3200 bytes
  EXPECT_EQ(frame_of(bench.take()), payload(1000, 2));
  EXPECT_EQ(bench.net->statistics().received.dropped, 1U);
}

TEST_P(NetRings, FramesThatLackBuffersGoBackWithTheirQueue) {
  NetBench bench{setup()};
  for (int round = 0; round < 3; ++round) {
    bench.start_all();
    rush(bench);
    push_together(bench, {payload(60), payload(9000), payload(62)});  // the first takes one, the rest wait
    bench.offer(200, 24);
    bench.on_loop([&] { bench.net->stop(); });
    unsigned empty = 0;
    while (const auto used = bench.driver.take_used(0)) {
      empty += used->written == 0 ? 1U : 0U;
    }
    EXPECT_EQ(empty, 23U);
    EXPECT_EQ(bench.driver.in_flight(0), 0U);
  }
  EXPECT_EQ(bench.net->statistics().received.dropped, 6U);
}

TEST_P(NetRings, OneQueueDoesNotStarveOthers) {
  auto wide = setup(kNetMergeableBuffers | kNetControlQueue);
  wide.size = 256;
  NetBench bench{wide};
  bench.start_all();
  bench.on_loop([&] {
    for (std::size_t i = 0; i < 3 * kNetTurn; ++i) {
      bench.driver.chain(1).readable(with_header({}, payload(60))).submit();
    }
    bench.net->notified(1);
    EXPECT_EQ(bench.sent().size(), static_cast<std::size_t>(kNetTurn));
  });
  bench.settle();
  EXPECT_EQ(bench.sent().size(), static_cast<std::size_t>(3 * kNetTurn));
}

TEST_P(NetRings, StopsInMidFlightAndStartsAgain) {
  NetBench bench{setup()};
  for (int round = 0; round < 3; ++round) {
    bench.start_all();
    bench.offer(100, 3);
    bench.push(with_header({}, payload(1000)));  // lacks buffers
    bench.on_loop([&] { bench.backend->full = true; });
    bench.send({}, payload(100));
    bench.on_loop([&] {
      bench.net->stop_queue(0);  // one by one, or all
      if (round != 1) {
        bench.net->stop_queue(1);
      }
      bench.net->stop();
      bench.net->stop_queue(0);
      bench.backend->full = false;
    });
    bench.settle();
  }
  bench.start_all();
  bench.offer(2000);
  bench.push(with_header({}, payload(1000, 9)));
  EXPECT_EQ(frame_of(bench.take()), payload(1000, 9));
  bench.send({}, payload(100));
  EXPECT_EQ(bench.sent().back(), with_header({}, payload(100)));
}

TEST_P(NetRings, WhatTheGuestDidNotAcceptDoesNotReachIt) {
  NetBench bench{setup()};
  bench.start_all();
  bench.offer(2000, 4);
  bench.push(with_header({.flags = kNeedsChecksum, .csum_start = 34, .csum_offset = 16}, payload(100)));
  bench.push(with_header({.flags = kNeedsChecksum, .gso_type = 1, .gso_size = 1000}, payload(100)));
  bench.push(payload(20));  // not even an Ethernet header
  EXPECT_EQ(bench.net->statistics().received.dropped, 3U);
  bench.push(with_header({.flags = kDataValid}, payload(100)));
  const auto got = bench.take();
  EXPECT_EQ(header_of(got), (NetHeader{.num_buffers = 1}));
}

TEST_P(NetRings, ACableComesOutAndInAgain) {
  NetBench bench{setup(kNetMergeableBuffers | kNetStatus)};
  bench.start_all();
  bench.offer(2000, 2);
  bench.on_loop([&] { bench.backend->plug(false); });
  bench.settle();
  EXPECT_EQ(bench.driver.config_changes(), 1U);
  bench.send({}, payload(100));
  EXPECT_TRUE(bench.driver.take_used(1));
  EXPECT_TRUE(bench.sent().empty());
  bench.push(with_header({}, payload(100)));
  EXPECT_FALSE(bench.driver.take_used(0));
  bench.on_loop([&] { bench.backend->plug(true); });
  bench.settle();
  EXPECT_EQ(frame_of(bench.take()), payload(100));
  bench.send({}, payload(100));
  EXPECT_EQ(bench.sent().size(), 1U);
}

TEST_P(NetRings, ABackendThatGoesTakesTheLinkDown) {
  NetBench bench{setup(kNetMergeableBuffers | kNetStatus)};
  bench.start_all();
  bench.offer(2000);
  bench.on_loop([&] { bench.backend->gone = true; });
  bench.send({}, payload(100));
  std::uint16_t status = 0xffff;
  bench.net->read_config(6, std::as_writable_bytes(std::span{&status, 1}));
  EXPECT_EQ(status, 0);
  EXPECT_EQ(bench.driver.config_changes(), 1U);
  EXPECT_TRUE(bench.driver.take_used(1));
  bench.send({}, payload(100));
  EXPECT_TRUE(bench.driver.take_used(1));  // requests go on being answered
  bench.on_loop([&] { bench.net->set_link(Net::Link::Up); });
  bench.net->read_config(6, std::as_writable_bytes(std::span{&status, 1}));
  EXPECT_EQ(status, 0);
}

TEST(Net, ARateLimitDelaysAndDropsNothing) {
  EventLoop loop;
  FakeDriver driver{{.size = 64, .features = 0, .queues = 3}};
  auto made = std::make_unique<FakeBackend>();
  auto* const backend = made.get();
  Net net{loop, std::move(made), {.mac = {2}, .from_guest = {.bytes = 1'000'000, .burst = 1000}}};
  net.start(0, driver);
  net.start_queue(1, driver.make_queue(1), driver.kick_fd());
  for (int i = 0; i < 20; ++i) {
    driver.chain(1).readable(with_header({}, payload(1000))).submit();
  }
  net.notified(1);
  EXPECT_LT(backend->pairs_[0].from_guest.size(), 20U);
  Timer look{loop, [&] {
               if (backend->pairs_[0].from_guest.size() == 20) {
                 loop.stop();
               }
             }};
  look.start_periodic(std::chrono::milliseconds{1});
  loop.run();
  EXPECT_EQ(net.statistics().sent.frames, 20U);
  net.stop();
}

TEST(Net, BytesCountThoughTheLastOperationIsSpent) {
  EventLoop loop;
  FakeDriver driver{{.size = 64, .features = 0, .queues = 3}};
  auto made = std::make_unique<FakeBackend>();
  auto* const backend = made.get();
  Net net{loop,
          std::move(made),
          {.mac = {2}, .from_guest = {.bytes = 1, .burst = 1, .operations = 1000, .operations_burst = 1}}};
  net.start(0, driver);
  net.start_queue(1, driver.make_queue(1), driver.kick_fd());
  for (int i = 0; i < 20; ++i) {
    driver.chain(1).readable(with_header({}, payload(1000))).submit();
  }
  net.notified(1);
  Timer enough{loop, [&] { loop.stop(); }};
  enough.start_once(std::chrono::milliseconds{50});
  loop.run();
  EXPECT_EQ(backend->pairs_[0].from_guest.size(), 1U);  // and left a debt of minutes
  net.stop();
}

}  // namespace
}  // namespace martlet::virtio
