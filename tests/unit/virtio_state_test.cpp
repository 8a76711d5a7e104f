#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "devices/virtio/transport.h"
#include "tests/unit/virtio_recorder.h"

namespace martlet::virtio {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Area = DeviceState::Area;
using Log = RecordingDevice::Log;

constexpr std::uint64_t kRamSize = 0x40000;
constexpr std::array<GuestRange, 1> kRam{GuestRange{GuestAddr{0}, kRamSize}};
constexpr std::uint64_t kOffered =
    RecordingDevice::kOwnFeature | kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked | kRingReset;
constexpr std::uint8_t kReady = kAcknowledge | kDriver | kFeaturesOk;
constexpr std::uint8_t kRunning = kReady | kDriverOk;

/// A transport without registers.
struct Interrupts final : DriverInterrupts {
  void queue_used(std::uint16_t /*queue*/) noexcept override {}
  void config_changed() noexcept override {}
  void needs_reset() noexcept override { resets += state->set_needs_reset() ? 1 : 0; }
  [[nodiscard]] int call_fd(std::uint16_t /*queue*/) const noexcept override { return -1; }
  DeviceState* state = nullptr;
  std::atomic<int> resets = 0;
};

struct VirtioState : ::testing::Test {
  VirtioState() { interrupts.state = &*state; }

  void accept(std::uint64_t features) {
    state->accept_features(0, static_cast<std::uint32_t>(features));
    state->accept_features(1, static_cast<std::uint32_t>(features >> 32U));
  }
  /// Until FEATURES_OK (§3.1.1).
  void negotiate(std::uint64_t features = kVersion1) {
    state->write_status(kAcknowledge);
    state->write_status(kAcknowledge | kDriver);
    accept(features);
    state->write_status(kReady);
    ASSERT_EQ(state->status(), kReady);
  }
  static std::uint64_t ring(std::uint32_t index) { return 0x1000 + index * 0x4000ULL; }
  void set_up(std::uint32_t index, std::uint16_t size = 8) { set_up(index, size, ring(index)); }
  void set_up(std::uint32_t index, std::uint16_t size, std::uint64_t at) {
    state->set_queue_size(index, size);
    for (const auto area : {Area::Descriptors, Area::Driver, Area::Device}) {
      state->set_queue_address(index, area, 0, static_cast<std::uint32_t>(at));
      state->set_queue_address(index, area, 1, static_cast<std::uint32_t>(at >> 32U));
      at += 0x1000;
    }
    state->enable_queue(index);
  }
  void run() { state->write_status(kRunning); }
  void kick(std::uint32_t index) {
    signal_eventfd(state->queue(index)->kick.get());
    running.settle();
  }

  EventLoop loop;
  GuestMemory memory{kRam};
  RecordingDevice device{loop};
  Interrupts interrupts;
  std::optional<DeviceState> state{std::in_place, device, memory, loop, interrupts};
  RunningLoop running{loop};  // last: no loop without the others
};

TEST_F(VirtioState, OffersTheDevicesFeaturesAndTheRings) {
  EXPECT_EQ(state->offered_features(0) | std::uint64_t{state->offered_features(1)} << 32U, kOffered);
  for (const std::uint32_t select : {2U, 32U, 0x8000'0000U, ~0U}) {
    EXPECT_EQ(state->offered_features(select), 0U);
    state->accept_features(select, ~0U);
    EXPECT_EQ(state->accepted_features(select), 0U);
  }
  EXPECT_EQ(state->accepted_features(0), 0U);
  EXPECT_EQ(state->accepted_features(1), 0U);
}

TEST_F(VirtioState, StartsTheDeviceAndItsEnabledQueues) {
  negotiate(kVersion1 | RecordingDevice::kOwnFeature);
  set_up(0);
  set_up(2, 16);
  EXPECT_THAT(device.take_log(), IsEmpty());
  run();
  EXPECT_EQ(state->status(), kRunning);
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967328", "start 0 size 8", "start 2 size 16"));
  EXPECT_EQ(raw(device.queue(2).descriptors), ring(2));
  EXPECT_EQ(raw(device.queue(2).driver), ring(2) + 0x1000);
  EXPECT_EQ(raw(device.queue(2).device), ring(2) + 0x2000);
  EXPECT_EQ(device.queue(2).features, kVersion1 | RecordingDevice::kOwnFeature);
  EXPECT_EQ(device.kick, state->queue(2)->kick.get());
}

TEST_F(VirtioState, AQueueEnabledLaterStartsThen) {
  negotiate();
  run();
  device.take_log();
  set_up(1, 256);
  EXPECT_THAT(device.take_log(), ElementsAre("start 1 size 256"));
  state->enable_queue(1);
  EXPECT_THAT(device.take_log(), IsEmpty());
}

TEST_F(VirtioState, RefusesFeaturesThatWereNotOfferedOrLackVersion1) {
  const std::uint64_t refused[] = {0, RecordingDevice::kOwnFeature, kVersion1 | 1, kVersion1 | 1ULL << 63U, ~0ULL};
  for (const auto features : refused) {
    accept(features);
    state->write_status(kRunning);  // nor does DRIVER_OK slip in beside it
    EXPECT_EQ(state->status(), kAcknowledge | kDriver);
  }
  accept(kOffered);
  state->write_status(kReady);
  EXPECT_EQ(state->status(), kReady);
  accept(kVersion1);
  EXPECT_EQ(state->accepted_features(0), static_cast<std::uint32_t>(kOffered)) << "fixed by FEATURES_OK";
  EXPECT_FALSE(device.started());
}

TEST_F(VirtioState, StatusBitsStayUntilAReset) {
  state->write_status(kDriverOk);
  EXPECT_EQ(state->status(), 0) << "no DRIVER_OK without FEATURES_OK";
  state->write_status(kNeedsReset | 0x30);
  EXPECT_EQ(state->status(), 0) << "not the driver's to say";
  negotiate();
  state->write_status(kAcknowledge);
  EXPECT_EQ(state->status(), kReady);
  run();
  state->write_status(kFailed);
  EXPECT_EQ(state->status(), kRunning | kFailed);
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967296"));
  state->write_status(kRunning);
  EXPECT_THAT(device.take_log(), IsEmpty()) << "once is enough";
}

TEST_F(VirtioState, QueueRegistersAreFixedWhileItIsEnabled) {
  const auto expect_fixed = [&] {
    state->set_queue_size(0, 4);
    for (const auto area : {Area::Descriptors, Area::Driver, Area::Device}) {
      for (const unsigned word : {0U, 1U, 2U, 32U}) {
        state->set_queue_address(0, area, word, 0x5000);
      }
    }
    const auto& queue = *state->queue(0);
    EXPECT_EQ(queue.size, 8);
    EXPECT_EQ(queue.descriptors, ring(0));
    EXPECT_EQ(queue.driver, ring(0) + 0x1000);
    EXPECT_EQ(queue.device, ring(0) + 0x2000);
    EXPECT_TRUE(queue.enabled);
  };
  set_up(0);
  expect_fixed();
  negotiate();
  expect_fixed();
  run();
  expect_fixed();
  state->write_status(kFailed);
  expect_fixed();
}

TEST_F(VirtioState, ThereIsNoQueueBeyondTheLast) {
  negotiate(kVersion1 | kRingReset);
  run();
  device.take_log();
  for (const std::uint32_t index : {3U, 0xffffU, 0x10000U, 0x8000'0000U, ~0U}) {
    EXPECT_EQ(state->queue(index), nullptr);
    set_up(index);
    state->disable_queue(index);
    state->reset_queue(index);
  }
  EXPECT_THAT(device.take_log(), IsEmpty());
}

TEST_F(VirtioState, HearsNotificationsOfStartedQueuesOnly) {
  kick(0);
  negotiate();
  set_up(0);
  kick(0);
  run();
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967296", "start 0 size 8"));
  kick(0);
  kick(1);
  EXPECT_THAT(device.take_log(), ElementsAre("notified 0"));
  state->write_status(0);
  kick(0);
  EXPECT_THAT(device.take_log(), ElementsAre("stop"));
}

TEST_F(VirtioState, AQueueThatServesItselfKeepsItsKicks) {
  device.by_itself = true;
  negotiate(kVersion1 | kRingReset);
  set_up(0);
  run();
  kick(0);
  EXPECT_EQ(drain_counter(state->queue(0)->kick.get()), 1U) << "the loop took it";
  state->reset_queue(0);
  device.by_itself = false;
  set_up(0);
  device.take_log();
  kick(0);
  EXPECT_THAT(device.take_log(), ElementsAre("notified 0"));
  state->write_status(0);

  device.by_itself = true;
  negotiate();
  set_up(0);
  run();
  state->write_status(0);
  device.by_itself = false;
  negotiate();
  set_up(0);
  run();
  device.take_log();
  kick(0);
  EXPECT_THAT(device.take_log(), ElementsAre("notified 0"));
}

TEST_F(VirtioState, RingsThatCannotBeLeaveTheOthersAlone) {
  struct Bad {
    std::uint16_t size;
    std::uint64_t at;
  };
  const Bad bad[] = {{8, kRamSize - 16}, {8, ~0xfULL},      {8, 0x1001}, {0, ring(1)},
                     {512, ring(1)},     {0x8000, ring(1)}, {7, ring(1)}};
  for (const auto& ring_of_1 : bad) {
    negotiate();
    set_up(0);
    set_up(1, ring_of_1.size, ring_of_1.at);
    set_up(2);
    EXPECT_EQ(state->status(), kReady);
    interrupts.resets = 0;
    device.take_log();
    run();
    EXPECT_EQ(state->status(), kRunning | kNeedsReset) << ring_of_1.size << " at " << ring_of_1.at;
    EXPECT_EQ(interrupts.resets, 1);
    EXPECT_THAT(device.take_log(), ElementsAre("start 4294967296", "start 0 size 8", "start 2 size 8"));
    kick(1);
    kick(2);
    EXPECT_THAT(device.take_log(), ElementsAre("notified 2"));
    state->disable_queue(1);
    EXPECT_THAT(device.take_log(), IsEmpty()) << "it was never started";
    state->write_status(kNeedsReset);
    EXPECT_EQ(state->status(), kRunning | kNeedsReset);
    state->write_status(0);
    EXPECT_EQ(state->status(), 0) << "a reset heals it";
  }
}

TEST_F(VirtioState, NeedsResetIsSaidOnce) {
  negotiate();
  run();
  device.interrupt([](DriverInterrupts& driver) { driver.needs_reset(); });
  device.interrupt([](DriverInterrupts& driver) { driver.needs_reset(); });
  EXPECT_EQ(interrupts.resets, 1);
  EXPECT_EQ(state->status(), kRunning | kNeedsReset);
}

TEST_F(VirtioState, ResetsSingleQueuesIfThatWasNegotiated) {
  negotiate();
  set_up(0);
  run();
  device.take_log();
  state->reset_queue(0);
  EXPECT_TRUE(state->queue(0)->enabled);
  EXPECT_THAT(device.take_log(), IsEmpty());

  state->write_status(0);
  accept(kVersion1 | kRingReset);
  set_up(0);
  state->reset_queue(0);
  EXPECT_TRUE(state->queue(0)->enabled) << "not before FEATURES_OK";
  state->write_status(0);

  negotiate(kVersion1 | kRingReset);
  set_up(0);
  set_up(1, 256);
  run();
  device.take_log();
  state->reset_queue(1);
  EXPECT_FALSE(state->queue(1)->enabled);
  EXPECT_EQ(state->queue(1)->size, 256);
  EXPECT_EQ(state->queue(1)->descriptors, 0U);
  EXPECT_EQ(state->queue(1)->driver, 0U);
  EXPECT_EQ(state->queue(1)->device, 0U);
  kick(1);
  EXPECT_THAT(device.take_log(), ElementsAre("stop 1"));
  state->reset_queue(1);
  EXPECT_THAT(device.take_log(), IsEmpty());
  set_up(1, 32, ring(2));
  kick(1);
  EXPECT_THAT(device.take_log(), ElementsAre("start 1 size 32", "notified 1"));
}

TEST_F(VirtioState, AQueueMayBeDisabledAndEnabledAgain) {
  negotiate();
  set_up(0);
  state->disable_queue(0);
  state->enable_queue(0);
  run();
  state->disable_queue(0);
  state->disable_queue(0);
  EXPECT_FALSE(state->queue(0)->enabled);
  kick(0);
  state->enable_queue(0);
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967296", "start 0 size 8", "stop 0", "start 0 size 8"));
}

TEST_F(VirtioState, AResetAtAnyStatusIsAFreshStart) {
  for (unsigned status = 0; status < 256; ++status) {
    accept(kVersion1 | kRingReset);
    set_up(1, 16);
    state->write_status(static_cast<std::uint8_t>(status));
    device.interrupt([](DriverInterrupts& driver) { driver.needs_reset(); });
    device.take_log();
    const bool started = (state->status() & kDriverOk) != 0;
    state->write_status(0);
    EXPECT_EQ(device.take_log(), started ? Log{"stop"} : Log{});
    EXPECT_EQ(state->status(), 0);
    EXPECT_EQ(state->accepted_features(0), 0U);
    EXPECT_EQ(state->accepted_features(1), 0U);
    EXPECT_FALSE(state->queue(1)->enabled);
    EXPECT_EQ(state->queue(1)->size, 256);
    EXPECT_EQ(state->queue(1)->descriptors, 0U);
  }
}

TEST_F(VirtioState, EndsWithTheDeviceStopped) {
  negotiate();
  set_up(0);
  run();
  device.take_log();
  const Fd kick = duplicate(state->queue(0)->kick.get());
  state.reset();
  signal_eventfd(kick.get());
  running.settle();
  EXPECT_THAT(device.take_log(), ElementsAre("stop"));
  EXPECT_EQ(drain_counter(kick.get()), 1U) << "the loop still watches it";
}

/// Whatever the order of things: the device itself refuses what must not happen to it.
TEST_F(VirtioState, HoldsUnderRandomDrivers) {
  std::mt19937 random{1};
  const auto any = [&](std::uint32_t bound) { return static_cast<std::uint32_t>(random() % bound); };
  for (int i = 0; i < 20000; ++i) {
    const auto index = any(4);
    switch (any(10)) {
      case 0:
        state->write_status(static_cast<std::uint8_t>(any(256)));
        break;
      case 1:
        state->write_status(any(3) == 0 ? 0 : kRunning);
        break;
      case 2:
        accept(any(4) == 0 ? random() : kVersion1 | kRingReset);
        break;
      case 3:
        set_up(index, static_cast<std::uint16_t>(any(20)));
        break;
      case 4:
        state->reset_queue(index);
        break;
      case 5:
        state->disable_queue(index);
        break;
      case 6:
        state->enable_queue(index);
        break;
      case 7:
        state->set_queue_address(index, Area::Driver, any(3), static_cast<std::uint32_t>(random()));
        break;
      case 8:
        if (const auto* const queue = state->queue(index)) {
          signal_eventfd(queue->kick.get());
        }
        break;
      default:
        device.interrupt([](DriverInterrupts& driver) { driver.needs_reset(); });
    }
    const bool running_now = (state->status() & kDriverOk) != 0;
    ASSERT_EQ(device.started(), running_now);
    for (std::uint32_t q = 0; q < 3; ++q) {
      ASSERT_TRUE(device.queue(q).size == 0 || (running_now && state->queue(q)->enabled));
    }
  }
}

}  // namespace
}  // namespace martlet::virtio
