// The kernel's own virtio-net device, against the fake driver and two real TAPs; where /dev/vhost-net is.

#include "devices/virtio/vhost_net.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include "net/tap.h"
#include "tests/unit/net_fixture.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

TEST(VhostNet, IsDoneWithoutOrMissedByName) {
  if (::access("/dev/vhost-net", F_OK) == 0) {
    GTEST_SKIP() << "/dev/vhost-net is there";
  }
  EventLoop loop;
  const FakeDriver driver{{}};
  const Net::Options automatic{.mac = {2}, .vhost = Vhost::Auto, .memory = &driver.memory()};
  const Net net{loop, std::make_unique<FakeBackend>(), automatic};
  EXPECT_EQ(net.refused_ring_features(), 0U);
  EXPECT_FALSE(net.serves_itself(0));
  const Net::Options wanted{.mac = {2}, .vhost = Vhost::On, .memory = &driver.memory()};
  EXPECT_THROW((Net{loop, std::make_unique<FakeBackend>(), wanted}), HostError);
}

/// An Ethernet frame of a protocol that no host speaks.
Frame private_frame(std::size_t bytes, unsigned seed) {
  Frame frame = payload(bytes, seed);
  std::fill_n(frame.begin(), 6, std::byte{0xff});
  frame[6] = std::byte{0x52};
  frame[12] = std::byte{0x88};
  frame[13] = std::byte{0xb5};
  return frame;
}

/// With a limit from the guest vhost-net carries what goes to it, and nothing else.
void frames_pass(const RateLimits& from_guest) {
  ASSERT_EQ(::system("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up"), 0);
  EventLoop loop;
  FakeDriver driver{
      {.size = 64, .features = kEventIndex | kIndirectDescriptors | std::uint64_t{kNetMergeableBuffers}, .queues = 3}};
  const auto other = Tap::on_bridge({.bridge = "br0", .guest = {0x52, 1}, .policy = {.spoof = Spoof::Allow}});
  Net net{loop,
          Tap::on_bridge({.bridge = "br0", .guest = {0x52, 2}, .policy = {.spoof = Spoof::Allow}}),
          {.mac = {0x52, 2}, .from_guest = from_guest, .vhost = Vhost::On, .memory = &driver.memory()}};
  EXPECT_NE(net.refused_ring_features() & kRingPacked, 0U);
  std::thread running{[&] { loop.run(); }};
  const Fd kicks[] = {make_eventfd(), make_eventfd()};
  for (unsigned round = 0; round < 3; ++round) {
    loop.call([&] {
      net.start(driver.features(), driver);
      for (std::uint16_t index = 0; index < 2; ++index) {
        net.start_queue(index, driver.make_queue(index), kicks[index].get());
        EXPECT_EQ(net.serves_itself(index), index == 0 || !from_guest.any());
      }
    });
    EXPECT_FALSE(net.serves_itself(2));
    // From the guest.
    const auto whole = with_header({}, private_frame(300, round));
    driver.chain(1).readable(std::span<const std::byte>{whole}).submit();
    signal_eventfd(kicks[1].get());
    if (from_guest.any()) {
      loop.call([&] { net.notified(1); });  // as the transport does
    }
    Frame got;
    for (pollfd ready{.fd = other->fd(0), .events = POLLIN, .revents = 0}; ::poll(&ready, 1, 60'000) == 1;) {
      got.resize(4096);
      const iovec into{got.data(), got.size()};
      got.resize(static_cast<std::size_t>(std::max<std::ptrdiff_t>(other->receive(0, {&into, 1}), 0)));
      if (got.size() > 26 && got[24] == std::byte{0x88}) {
        break;
      }
    }
    ASSERT_GT(got.size(), 26U);
    EXPECT_EQ(frame_of(got), private_frame(300, round));
    // To the guest, over several buffers.
    for (int i = 0; i < 40; ++i) {
      driver.chain(0).writable(200).submit();
    }
    signal_eventfd(kicks[0].get());
    auto back = with_header({}, private_frame(1000, round));
    const iovec from{back.data(), back.size()};
    EXPECT_GT(other->send(0, {&from, 1}), 0);
    bool arrived = false;
    for (int tries = 0; tries < 6000 && !(arrived && driver.interrupts(0) > 0); ++tries) {
      while (auto used = driver.take_used(0)) {
        auto bytes = used->bytes();
        if (bytes.size() < 26 || bytes[24] != std::byte{0x88}) {
          continue;  // what the kernel tells everybody
        }
        for (int more = header_of(bytes).num_buffers - 1; more > 0; --more) {
          const auto part = driver.take_used(0).value().bytes();
          bytes.insert(bytes.end(), part.begin(), part.end());
        }
        EXPECT_EQ(header_of(bytes).num_buffers, 6);
        EXPECT_EQ(frame_of(bytes), private_frame(1000, round));
        arrived = true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
    EXPECT_TRUE(arrived);
    EXPECT_GT(driver.interrupts(0), 0U);
    loop.call([&] { net.stop(); });
    EXPECT_FALSE(net.serves_itself(0));
  }
  loop.call([&] { loop.stop(); });
  running.join();
}

/// What the kernel says of a ring that it cannot follow becomes DEVICE_NEEDS_RESET, and a reset heals it.
void rings_fail() {
  EventLoop loop;
  FakeDriver driver{{.size = 64, .features = kIndirectDescriptors, .queues = 3}};
  ASSERT_EQ(::system("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up"), 0);
  Net net{loop,
          Tap::on_bridge({.bridge = "br0", .guest = {0x52, 2}, .policy = {.spoof = Spoof::Allow}}),
          {.mac = {0x52, 2}, .vhost = Vhost::On, .memory = &driver.memory()}};
  std::thread running{[&] { loop.run(); }};
  const Fd kick = make_eventfd();
  const std::function<void()> mischief[] = {
      [&] { driver.set_avail_index(static_cast<std::uint16_t>(driver.avail_index(1) + 65), 1); },
      [&] { driver.push_head(64, 1); },
      [&] { driver.chain(1).raw({.addr = FakeDriver::kHole, .len = 100}).submit(); },
      [&] { driver.chain(1).readable(payload(100)).table_bytes(17).submit(); },
  };
  unsigned expected = 0;
  for (const auto& act : mischief) {
    loop.call([&] {
      net.start(driver.features(), driver);
      net.start_queue(1, driver.make_queue(1), kick.get());
    });
    ASSERT_TRUE(net.serves_itself(1));
    driver.chain(1).readable(with_header({}, private_frame(300, 0))).submit();
    signal_eventfd(kick.get());
    for (int tries = 0; tries < 2000 && !driver.take_used(1); ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    EXPECT_EQ(driver.in_flight(1), 0U);
    EXPECT_EQ(driver.resets_wanted(), expected);
    act();
    ++expected;
    signal_eventfd(kick.get());
    for (int tries = 0; tries < 2000 && driver.resets_wanted() < expected; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }
    EXPECT_EQ(driver.resets_wanted(), expected);
    loop.call([&] { net.stop(); });
  }
  loop.call([&] { loop.stop(); });
  running.join();
}

void in_a_network_of_its_own(const std::function<void()>& test) {
  if (::access("/dev/vhost-net", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "no /dev/vhost-net here (modprobe vhost_net)";
  }
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::unshare(CLONE_NEWNET) != 0 || ::access("/dev/net/tun", R_OK | W_OK) != 0) {
      ::_exit(77);
    }
    test();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace, and /dev/net/tun";
  }
  EXPECT_EQ(status, 0);
}

TEST(VhostNet, CarriesFramesBothWays) {
  in_a_network_of_its_own([] { frames_pass({}); });
}
TEST(VhostNet, CarriesThemToTheGuestAloneWhereWhatItSendsIsLimited) {
  in_a_network_of_its_own([] { frames_pass({.bytes = 1U << 20U, .burst = 1U << 20U}); });
}
TEST(VhostNet, ARingThatCannotBeFollowedNeedsAReset) { in_a_network_of_its_own(rings_fail); }

}  // namespace
}  // namespace martlet::virtio
