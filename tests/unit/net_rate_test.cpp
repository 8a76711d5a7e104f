// A guest that sends as much as it can for ten seconds, and the rate it is held to.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>

#include "tests/unit/net_fixture.h"

namespace martlet::virtio {
namespace {

TEST(NetRate, WhatAGuestSendsIsItsRateWithinFivePercent) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  constexpr double kRate = 1'000'000;
  constexpr double kBurst = 200'000;
  constexpr std::size_t kFrame = 1514;
  EventLoop loop;
  FakeDriver driver{{.size = 64, .features = 0, .queues = 3}};
  auto made = std::make_unique<FakeBackend>();
  auto* const backend = made.get();
  Net net{loop, std::move(made), {.mac = {2}, .from_guest = {.bytes = 1'000'000, .burst = 200'000}}};
  net.start(0, driver);
  net.start_queue(1, driver.make_queue(1), driver.kick_fd());
  const auto frame = with_header({}, payload(kFrame));
  std::size_t submitted = 0;
  const auto fill = [&] {
    for (; submitted < net.statistics().sent.frames + 64; ++submitted) {
      static_cast<void>(driver.take_used(1));
      driver.chain(1).readable(frame).submit();
    }
    net.notified(1);
  };
  const auto sent = [&] { return static_cast<double>(net.statistics().sent.bytes); };
  fill();
  auto last = Clock::now();
  auto begin = last;
  double before = 0;
  double lost = 0;  // seconds: when this machine had no time for us until more was saved than may be
  Timer turn{loop, [&] {
               const auto now = Clock::now();
               lost += std::max(Seconds{now - last}.count() - kBurst / kRate, 0.0);
               last = now;
               fill();
               if (before == 0 && sent() > 2 * kBurst) {  // past its burst
                 begin = now;
                 before = sent();
                 lost = 0;
               } else if (before != 0 && now - begin > std::chrono::seconds{10}) {
                 loop.stop();
               }
             }};
  turn.start_periodic(std::chrono::milliseconds{5});
  loop.run();
  const double rate = (sent() - before) / (Seconds{last - begin}.count() - lost);
  EXPECT_NEAR(rate / kRate, 1, 0.05) << lost << " s lost";
  EXPECT_EQ(net.statistics().sent.bytes, backend->pairs_[0].from_guest.size() * kFrame);
  net.stop();
}

}  // namespace
}  // namespace martlet::virtio
