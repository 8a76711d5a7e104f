// A network card served by vhost-user: a back-end of the test's own maps the guest's memory and echoes frames; its
// hostile twins answer nonsense, too much or nothing.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/vhost_user_net.h"
#include "tests/unit/vhost_user_back_end.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

std::uint16_t status_of(VhostUserNet& net) {
  std::uint16_t status = 0;
  net.read_config(6, std::as_writable_bytes(std::span{&status, 1}));
  return status;
}

bool wait_for(const std::function<bool()>& what) {
  for (int tries = 0; tries < 2000 && !what(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  return what();
}

TEST(VhostUser, TheBackEndEchoesFramesThroughTheGuestsMemoryAlsoAfterAReset) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .queues = 2}};
  FakeBackEnd back_end;
  VhostUserNet net{loop, driver.memory(), {.back_end = {.path = back_end.path}, .mac = {0x52}}};
  EXPECT_EQ(net.features(), kNetMac | kNetStatus);
  EXPECT_NE(net.refused_ring_features() & kRingPacked, 0U);
  EXPECT_EQ(net.refused_ring_features() & kEventIndex, 0U);
  EXPECT_EQ(back_end.mappings.size(), driver.memory().regions().size());
  std::thread running{[&] { loop.run(); }};
  const Fd kicks[] = {make_eventfd(), make_eventfd()};
  for (unsigned round = 0; round < 3; ++round) {
    loop.call([&] {
      net.start(driver.features(), driver);
      for (std::uint16_t index = 0; index < 2; ++index) {
        net.start_queue(index, driver.make_queue(index), kicks[index].get());
        EXPECT_TRUE(net.serves_itself(index));
      }
    });
    ASSERT_TRUE(wait_for([&] { return back_end.enabled == 3; }));
    EXPECT_EQ(back_end.accepted, kVersion1 | kProtocolFeatures);
    const auto before = driver.interrupts(0);
    const auto text = "frame " + std::to_string(round);
    driver.chain(0).writable(200).submit();
    driver.chain(1).readable(std::string_view{text}).submit();
    signal_eventfd(kicks[1].get());
    back_end.echo();
    EXPECT_TRUE(wait_for([&] { return driver.interrupts(0) > before; }));
    const auto used = driver.take_used(0);
    ASSERT_TRUE(used);
    EXPECT_EQ(used->text(), text);
    EXPECT_TRUE(driver.take_used(1));
    loop.call([&] { net.stop(); });
    EXPECT_FALSE(net.serves_itself(0));
    EXPECT_EQ(back_end.enabled, 0U);
  }
  EXPECT_EQ(status_of(net), kLinkUp);
  loop.call([&] { loop.stop(); });
  running.join();
}

TEST(VhostUser, TheGuestEnablesPairs) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .queues = 5}};
  FakeBackEnd back_end;
  VhostUserNet net{loop, driver.memory(), {.back_end = {.path = back_end.path, .pairs = 2}, .mac = {0x52}}};
  EXPECT_EQ(net.queue_sizes().size(), 5U);
  EXPECT_EQ(net.features(), kNetMac | kNetStatus | kNetMultiQueue | kNetControlQueue);
  net.start(driver.features() | net.features(), driver);
  for (std::uint16_t index = 0; index < 5; ++index) {
    net.start_queue(index, driver.make_queue(index), driver.kick_fd());
  }
  EXPECT_FALSE(net.serves_itself(4));
  EXPECT_TRUE(wait_for([&] { return back_end.enabled == 3; }));
  const auto ask = [&](std::uint16_t pairs) {
    driver.chain(4).readable(std::array<std::uint8_t, 2>{4, 0}).readable(pairs).writable(1).submit();
    net.notified(4);
    return driver.take_used(4).value().data[0][0];
  };
  EXPECT_EQ(ask(2), std::byte{0});
  EXPECT_TRUE(wait_for([&] { return back_end.enabled == 15; }));
  EXPECT_EQ(ask(3), std::byte{1});
  EXPECT_EQ(ask(0), std::byte{1});
  EXPECT_EQ(ask(1), std::byte{0});
  EXPECT_TRUE(wait_for([&] { return back_end.enabled == 3; }));
}

TEST(VhostUser, ARingThatCannotBeFollowedNeedsAReset) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .queues = 2}};
  FakeBackEnd back_end;
  VhostUserNet net{loop, driver.memory(), {.back_end = {.path = back_end.path}, .mac = {0x52}}};
  std::thread running{[&] { loop.run(); }};
  for (unsigned round = 1; round < 3; ++round) {
    loop.call([&] {
      net.start(driver.features(), driver);
      net.start_queue(1, driver.make_queue(1), driver.kick_fd());
    });
    ASSERT_TRUE(wait_for([&] { return back_end.enabled == 2; }));
    EXPECT_EQ(driver.resets_wanted(), round - 1);
    back_end.fail(1);
    EXPECT_TRUE(wait_for([&] { return driver.resets_wanted() == round; }));
    loop.call([&] {
      net.stop();
      back_end.fail(1);  // too late: the device is as new
      net.stop();
    });
  }
  loop.call([&] { loop.stop(); });
  running.join();
  EXPECT_EQ(driver.resets_wanted(), 2U);
}

TEST(VhostUser, AfterARingFullOfNonsenseTheNextCommandIsServed) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .features = kEventIndex, .queues = 5}};
  FakeBackEnd back_end;
  VhostUserNet net{loop, driver.memory(), {.back_end = {.path = back_end.path, .pairs = 2}, .mac = {0x52}}};
  net.start(driver.features() | net.features(), driver);
  net.start_queue(4, driver.make_queue(4), driver.kick_fd());
  for (int i = 0; i < 16; ++i) {
    driver.chain(4).raw({.addr = FakeDriver::kHole, .len = 1}).submit();
  }
  EXPECT_TRUE(driver.kick_wanted(4));
  net.notified(4);
  while (driver.take_used(4)) {
  }
  driver.chain(4).readable(std::array<std::uint8_t, 4>{4, 0, 2, 0}).writable(1).submit();
  ASSERT_TRUE(driver.kick_wanted(4));
  net.notified(4);
  EXPECT_EQ(driver.take_used(4).value().data[0][0], std::byte{0});
}

TEST(VhostUser, WhenTheBackEndGoesTheCableIsOutAndTheGuestLivesOn) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .queues = 2}};
  FakeBackEnd back_end;
  std::atomic<int> lost = 0;
  VhostUserNet net{
      loop, driver.memory(), {.back_end = {.path = back_end.path}, .mac = {0x52}, .lost = [&] { ++lost; }}};
  std::thread running{[&] { loop.run(); }};
  const auto start = [&] {
    net.start(driver.features() | net.features(), driver);
    net.start_queue(0, driver.make_queue(0), driver.kick_fd());
  };
  loop.call(start);
  EXPECT_TRUE(net.serves_itself(0));
  back_end.hang_up();
  EXPECT_TRUE(wait_for([&] { return lost == 1; }));
  EXPECT_EQ(status_of(net), 0U);
  EXPECT_EQ(driver.config_changes(), 1U);
  loop.call([&] { net.stop(); });
  loop.call(start);
  EXPECT_FALSE(net.serves_itself(0));
  loop.call([&] { loop.stop(); });
  running.join();
  EXPECT_EQ(lost, 1);
}

TEST(VhostUser, AnAnswerThatIsNoneAtAResetEndsTheConnection) {
  EventLoop loop;
  FakeDriver driver{{.size = 16, .queues = 2}};
  FakeBackEnd back_end{[](FakeBackEnd& self, const Received& received) {
    if (received.request == 11) {
      self.say_value(11, std::array<std::uint32_t, 2>{7, 0});
    }
    return received.request == 11;
  }};
  int lost = 0;
  VhostUserNet net{
      loop, driver.memory(), {.back_end = {.path = back_end.path}, .mac = {0x52}, .lost = [&] { ++lost; }}};
  net.start(driver.features(), driver);
  net.start_queue(0, driver.make_queue(0), driver.kick_fd());
  net.stop();
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(status_of(net), 0U);
}

/// How making a card on this back-end is refused; empty: it is not.
std::string refusal(FakeBackEnd& back_end, std::uint16_t pairs = 1) {
  EventLoop loop;
  const FakeDriver driver{{}};
  try {
    const VhostUserNet net{loop, driver.memory(), {.back_end = {.path = back_end.path, .pairs = pairs}}};
    return "";
  } catch (const HostError& error) {
    return error.what();
  }
}

TEST(VhostUser, HostileBackEndsAreRefusedInOneLine) {
  constexpr std::uint64_t kNumber = kVersion1 | kProtocolFeatures;
  const auto bytes = std::as_bytes(std::span{&kNumber, 1});
  for (const std::uint32_t request : {1U, 15U, 5U}) {
    const std::map<std::string, std::function<void(FakeBackEnd&)>> ways{
        {"hangs up", [](FakeBackEnd& self) { self.hang_up(); }},
        {"another request", [&](FakeBackEnd& self) { self.say(77, bytes); }},
        {"no reply flag", [&](FakeBackEnd& self) { self.say(request, bytes, 1); }},
        {"another version", [&](FakeBackEnd& self) { self.say(request, bytes, 6); }},
        {"too large", [&](FakeBackEnd& self) { self.say(request, bytes, 5, 0xffff'ffff); }},
        {"too small", [&](FakeBackEnd& self) { self.say(request, bytes, 5, 4); }},
        {"cut off",
         [&](FakeBackEnd& self) {
           self.say(request, bytes.first(3), 5, 8);
           self.hang_up();
         }},
        {"descriptors nobody asked for", [&](FakeBackEnd& self) { self.say(request, bytes, 5, {}, 60); }},
    };
    for (const auto& [name, way] : ways) {
      FakeBackEnd back_end{[&](FakeBackEnd& self, const Received& received) {
        if (received.request == request) {
          way(self);
        }
        return received.request == request;
      }};
      const auto what = refusal(back_end);
      EXPECT_NE(what.find("-n vhost-user=" + back_end.path), std::string::npos) << request << ": " << name;
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    }
  }
}

TEST(VhostUser, RefusesABackEndThatIsSilentTooOldOrTooSmall) {
  {
    FakeBackEnd silent{[](FakeBackEnd&, const Received&) { return true; }};
    EXPECT_NE(refusal(silent).find("GET_FEATURES within"), std::string::npos);
  }
  {
    FakeBackEnd old{{}, kProtocolFeatures};
    EXPECT_NE(refusal(old).find("VIRTIO_F_VERSION_1"), std::string::npos);
  }
  {
    FakeBackEnd small;
    EXPECT_NE(refusal(small, 3).find("queues=3: the back-end has 2"), std::string::npos);
  }
  FakeBackEnd plain{{}, kVersion1};
  EXPECT_EQ(refusal(plain), "");
}

TEST(VhostUser, RefusesWhatIsNoSocketAndMemoryThatCannotBeShared) {
  EventLoop loop;
  const FakeDriver driver{{}};
  const std::vector<std::string> paths{"/nowhere/at/all", "/dev/null", "", std::string(200, 'x')};
  for (const auto& path : paths) {
    EXPECT_THROW((VhostUserNet{loop, driver.memory(), {.back_end = {.path = path}}}), HostError) << path;
  }
  const GuestRange range{.start = GuestAddr{0}, .size = 1U << 20U};
  const GuestMemory anonymous{{&range, 1}};
  EXPECT_THROW((VhostUserNet{loop, anonymous, {.back_end = {.path = "/dev/null"}}}), HostError);
}

}  // namespace
}  // namespace martlet::virtio
