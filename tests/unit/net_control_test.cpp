#include <gtest/gtest.h>

#include <array>

#include "devices/virtio/net.h"
#include "devices/virtio/net_header.h"
#include "tests/unit/net_fixture.h"

namespace martlet::virtio {
namespace {

class NetControl : public testing::TestWithParam<Ring> {
 protected:
  [[nodiscard]] static NetSetup setup(std::uint64_t features, std::uint16_t pairs = 1) {
    return {.ring = GetParam(), .features = features, .pairs = pairs};
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, NetControl, testing::Values(Ring::Split, Ring::Packed),
                         [](const auto& of) { return of.param == Ring::Split ? "Split" : "Packed"; });

TEST_P(NetControl, CommandsAreCheckedAndObeyed) {
  NetBench bench{setup(kNetControlQueue | kNetControlRx | kNetControlMac | kNetControlGuestOffloads |
                       kNetGuestChecksum | kNetGuestTso4 | kNetStatus)};
  bench.start_all();
  const auto config = [&] {
    NetConfig now{};
    bench.net->read_config(0, std::as_writable_bytes(std::span{&now, 1}));
    return now;
  };
  // Receive filters are taken note of, no more.
  EXPECT_EQ(bench.command({0, 0, 1}), 0);
  EXPECT_EQ(bench.command({0, 1, 0}), 0);
  EXPECT_EQ(bench.command({0, 0}), 1);
  EXPECT_EQ(bench.command({0, 2, 1}), 1);  // CTRL_RX_EXTRA was not accepted
  EXPECT_EQ(bench.command({1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0}), 0);
  EXPECT_EQ(bench.command({1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6}), 1);
  EXPECT_EQ(bench.command({1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0}), 1);
  // The address.
  const auto generation = bench.net->config_generation();
  EXPECT_EQ(bench.command({1, 1, 0x52, 1, 2, 3, 4, 5}), 0);
  EXPECT_EQ(config().mac, (std::array<std::uint8_t, 6>{0x52, 1, 2, 3, 4, 5}));
  EXPECT_NE(bench.net->config_generation(), generation);
  EXPECT_EQ(bench.command({1, 1, 0x53, 1, 2, 3, 4, 5}), 1);
  EXPECT_EQ(bench.command({1, 1, 0, 0, 0, 0, 0, 0}), 1);
  EXPECT_EQ(bench.command({1, 1, 0x52, 1, 2, 3, 4}), 1);
  EXPECT_EQ(config().mac[0], 0x52);
  // Offloads: of those negotiated.
  EXPECT_EQ(bench.backend->wanted, kChecksum | kTso4);
  EXPECT_EQ(bench.command({5, 0, 2, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(bench.backend->wanted, std::uint32_t{kChecksum});
  EXPECT_EQ(bench.command({5, 0, 2, 1, 0, 0, 0, 0, 0, 0}), 1);  // TSO6
  EXPECT_EQ(bench.command({5, 0, 1, 0, 0, 0, 0, 0, 0, 0}), 1);  // not a guest offload at all
  EXPECT_EQ(bench.command({5, 0, 2}), 1);
  EXPECT_EQ(bench.backend->wanted, std::uint32_t{kChecksum});
  // What there is not.
  EXPECT_EQ(bench.command({4, 0, 1, 0}), 1);  // MQ was not accepted
  EXPECT_EQ(bench.command({2, 0, 1, 0}), 1);
  EXPECT_EQ(bench.command({3, 0}), 1);  // there is nothing to announce
  EXPECT_EQ(bench.command({99, 99}), 1);
  EXPECT_EQ(bench.command({1}), 1);
  // Nowhere to answer to: completed all the same, and nothing done.
  bench.on_loop([&] {
    bench.driver.chain(2).readable(std::array<std::uint8_t, 8>{1, 1, 0x52, 9, 9, 9, 9, 9}).submit();
    bench.driver.chain(2).writable(1).submit();
  });
  bench.kick(2);
  EXPECT_EQ(bench.driver.take_used(2)->written, 0U);
  EXPECT_EQ(bench.driver.take_used(2)->data[0][0], std::byte{1});
  EXPECT_EQ(config().mac[1], 1);
  bench.on_loop([&] { bench.net->stop(); });
  EXPECT_EQ(config().mac, (std::array<std::uint8_t, 6>{0x52, 0x54, 0, 1, 2, 3}));  // as it was
  EXPECT_EQ(bench.backend->wanted, 0U);
}

TEST_P(NetControl, PairsAreServedOnceEnabled) {
  NetBench bench{setup(kNetMergeableBuffers | kNetControlQueue | kNetMultiQueue, 4)};
  bench.control = 8;
  bench.start();
  for (std::uint16_t index = 0; index <= 8; ++index) {
    bench.start_queue(index);
  }
  bench.send({}, payload(100), 3);
  bench.offer(2000, 1, 2);
  EXPECT_TRUE(bench.sent(1).empty());
  EXPECT_EQ(bench.backend->pairs_[1].receives, 0);
  EXPECT_EQ(bench.command({4, 0, 0, 0}), 1);
  EXPECT_EQ(bench.command({4, 0, 5, 0}), 1);
  EXPECT_EQ(bench.command({4, 0, 0, 0x80}), 1);
  EXPECT_EQ(bench.command({4, 0, 2}), 1);
  EXPECT_EQ(bench.command({4, 1, 2, 0}), 1);  // RSS is not offered
  EXPECT_EQ(bench.backend->enabled, 1);
  EXPECT_EQ(bench.command({4, 0, 2, 0}), 0);
  EXPECT_EQ(bench.backend->enabled, 2);
  EXPECT_EQ(bench.sent(1).size(), 1U);  // what waited
  bench.push(with_header({}, payload(70)), 1);
  EXPECT_EQ(frame_of(bench.take(2)), payload(70));
  EXPECT_EQ(bench.command({4, 0, 1, 0}), 0);
  bench.send({}, payload(100), 3);
  EXPECT_EQ(bench.sent(1).size(), 1U);
  bench.on_loop([&] { bench.net->stop(); });
  EXPECT_EQ(bench.backend->enabled, 1);
}

TEST_P(NetControl, WithoutMultiqueueTheControlQueueIsTheThird) {
  NetBench bench{setup(kNetControlQueue | kNetControlRx, 4)};
  bench.start_all();
  EXPECT_EQ(bench.command({0, 0, 1}), 0);
  bench.start_queue(3);  // means nothing then
  bench.start_queue(8);
  bench.kick(3);
  bench.kick(8);
  bench.on_loop([&] { bench.net->stop_queue(8); });
  bench.send({}, payload(100));
  EXPECT_EQ(bench.sent().size(), 1U);
}

TEST_P(NetControl, AfterARingFullOfNonsenseTheNextCommandIsServed) {
  NetBench bench{setup(kNetControlQueue | kNetControlRx)};
  bench.start_all();
  bench.on_loop([&] {
    for (int i = 0; i < 64; ++i) {  // all that it holds
      bench.driver.chain(2).raw({.addr = FakeDriver::kHole, .len = 1}).submit();
    }
  });
  EXPECT_TRUE(bench.driver.kick_wanted(2));
  bench.kick(2);
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(bench.driver.take_used(2));
  }
  bench.on_loop([&] { bench.driver.chain(2).readable(std::array<std::uint8_t, 3>{0, 0, 1}).writable(1).submit(); });
  ASSERT_TRUE(bench.driver.kick_wanted(2));
  bench.kick(2);
  const auto used = bench.driver.take_used(2);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->data[0][0], std::byte{0});
}

/// Each may cost the host an RCU grace period, and every queue its turn.
TEST(Net, ARingFullOfCommandsIsManyTurns) {
  EventLoop loop;
  FakeDriver driver{{.size = 64, .features = 0, .queues = 5}};
  Net net{loop, std::make_unique<FakeBackend>(std::uint16_t{2}), {.mac = {2}}};
  net.start(kNetMultiQueue | kNetControlQueue, driver);
  net.start_queue(4, driver.make_queue(4), driver.kick_fd());
  for (int i = 0; i < 30; ++i) {
    const auto pairs = static_cast<std::uint8_t>(1 + i % 2);
    driver.chain(4).readable(std::array<std::uint8_t, 4>{4, 0, pairs, 0}).writable(1).submit();
  }
  net.notified(4);
  EXPECT_LT(net.statistics().commands, 10U);
  Timer look{loop, [&] {
               if (net.statistics().commands == 30) {
                 loop.stop();
               }
             }};
  look.start_periodic(std::chrono::milliseconds{1});
  loop.run();
  EXPECT_EQ(net.statistics().bad_commands, 0U);
  net.stop();
}

TEST(Net, OffersWhatItsBackendCanDo) {
  EventLoop loop;
  auto plain = std::make_unique<FakeBackend>();
  plain->offered = 0;
  const Net simple{loop, std::move(plain), {.mac = {2}}};
  EXPECT_EQ(simple.features() & (features_of(~0U) | kNetMultiQueue | kNetControlGuestOffloads), 0U);
  EXPECT_EQ(simple.queue_sizes().size(), 3U);
  const Net wide{loop, std::make_unique<FakeBackend>(std::uint16_t{4}), {.mac = {2}}};
  EXPECT_NE(wide.features() & kNetMultiQueue, 0U);
  EXPECT_NE(wide.features() & kNetHostTso4, 0U);
  EXPECT_EQ(wide.queue_sizes().size(), 9U);
}

TEST(Net, ItsConfigurationEndsWhereItEnds) {
  EventLoop loop;
  Net net{loop, std::make_unique<FakeBackend>(), {.mac = {0x52, 1, 2, 3, 4, 5}, .mtu = 1400}};
  std::array<std::byte, 16> bytes{};
  bytes.fill(std::byte{0xee});
  net.read_config(0, bytes);
  EXPECT_EQ(bytes[0], std::byte{0x52});
  EXPECT_EQ(bytes[6], std::byte{1});  // link up
  EXPECT_EQ(bytes[8], std::byte{1});  // one pair
  EXPECT_EQ(bytes[10], std::byte{1400 & 0xff});
  EXPECT_EQ(bytes[12], std::byte{0});
  net.read_config(10, bytes);
  EXPECT_EQ(bytes[0], std::byte{1400 & 0xff});
  EXPECT_EQ(bytes[2], std::byte{0});
  net.read_config(0xffffffff, bytes);
  EXPECT_EQ(bytes[0], std::byte{0});
}

}  // namespace
}  // namespace martlet::virtio
