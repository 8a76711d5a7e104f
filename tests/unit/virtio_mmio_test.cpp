#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "devices/virtio/mmio.h"
#include "tests/unit/virtio_mmio_guest.h"

namespace martlet::virtio {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Log = RecordingDevice::Log;

struct VirtioMmioTest : ::testing::Test, MmioGuest {
  RunningLoop running{loop};
};

TEST_F(VirtioMmioTest, SaysWhatItIs) {
  EXPECT_EQ(in(MAGIC_VALUE), 0x74726976U);
  EXPECT_EQ(in(VERSION), 2U);
  EXPECT_EQ(in(DEVICE_ID), 4U);
  EXPECT_EQ(in(VENDOR_ID), 0x4c54524dU);
  EXPECT_EQ(in(STATUS), 0U);
  EXPECT_EQ(in(INTERRUPT_STATUS), 0U);
  for (std::uint64_t reg = SHM_LEN_LOW; reg <= SHM_BASE_HIGH; reg += 4) {
    EXPECT_EQ(in(reg), 0xffff'ffffU) << "no shared memory region";
  }
}

/// As Linux 6.1's virtio core and virtio_mmio.c do it.
TEST_F(VirtioMmioTest, IsBroughtUpAsTheSpecificationSays) {
  out(STATUS, 0);
  out(STATUS, kAcknowledge);
  out(STATUS, kAcknowledge | kDriver);
  out(DEVICE_FEATURES_SEL, 1);
  std::uint64_t features = in(DEVICE_FEATURES) << 32U;
  out(DEVICE_FEATURES_SEL, 0);
  features |= in(DEVICE_FEATURES);
  EXPECT_EQ(features,
            RecordingDevice::kOwnFeature | kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked | kRingReset);
  accept(kVersion1 | RecordingDevice::kOwnFeature);
  out(STATUS, kReady);
  ASSERT_EQ(in(STATUS), kReady);
  out(QUEUE_SEL, 1);
  ASSERT_EQ(in(QUEUE_READY), 0U);
  ASSERT_EQ(in(QUEUE_NUM_MAX), 256U);
  set_up(1, 256);
  ASSERT_EQ(in(QUEUE_READY), 1U);
  EXPECT_THAT(device.take_log(), IsEmpty());
  out(STATUS, kRunning);
  EXPECT_EQ(in(STATUS), kRunning);
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967328", "start 1 size 256"));
  EXPECT_EQ(raw(device.queue(1).descriptors), ring(1));
  EXPECT_EQ(raw(device.queue(1).driver), ring(1) + 0x1000);
  EXPECT_EQ(raw(device.queue(1).device), ring(1) + 0x2000);
}

TEST_F(VirtioMmioTest, AddressesHaveTwoHalves) {
  negotiate();
  set_up(0);
  out(QUEUE_READY, 0);
  for (const auto reg : {QUEUE_DESC_HIGH, QUEUE_AVAIL_HIGH, QUEUE_USED_HIGH}) {
    out(reg, 1);
    out(QUEUE_READY, 1);
    run();
    EXPECT_EQ(in(STATUS), kRunning | kNeedsReset) << "4 GiB further on there is no memory";
    negotiate();
    set_up(0);
    out(QUEUE_READY, 0);
  }
}

TEST_F(VirtioMmioTest, RefusesFeaturesItDidNotOffer) {
  for (const auto features : {0ULL, 1ULL | kVersion1, ~0ULL}) {
    negotiate(features);
    EXPECT_EQ(in(STATUS), kAcknowledge | kDriver);
    run();
    EXPECT_EQ(in(STATUS), kAcknowledge | kDriver);
  }
  for (const std::uint32_t select : {2U, 0x8000'0000U, ~0U}) {
    out(DEVICE_FEATURES_SEL, select);
    EXPECT_EQ(in(DEVICE_FEATURES), 0U);
  }
}

TEST_F(VirtioMmioTest, InterruptsSayWhy) {
  negotiate();
  set_up(0);
  run();
  device.interrupt([](DriverInterrupts& driver) {
    EXPECT_EQ(driver.call_fd(0), -1);
    driver.queue_used(0);
  });
  EXPECT_EQ(edges(), 1U);
  EXPECT_EQ(in(INTERRUPT_STATUS), kUsed);
  device.interrupt([](DriverInterrupts& driver) { driver.config_changed(); });
  EXPECT_EQ(edges(), 1U);
  EXPECT_EQ(in(INTERRUPT_STATUS), kUsed | kConfig);
  out(INTERRUPT_ACK, kUsed);
  EXPECT_EQ(in(INTERRUPT_STATUS), kConfig);
  out(INTERRUPT_STATUS, 0);
  EXPECT_EQ(in(INTERRUPT_STATUS), kConfig) << "read-only";
  out(INTERRUPT_ACK, ~0U);
  EXPECT_EQ(in(INTERRUPT_STATUS), 0U);
  EXPECT_EQ(edges(), 0U);
  device.interrupt([](DriverInterrupts& driver) { driver.queue_used(0); });
  out(STATUS, 0);
  EXPECT_EQ(in(INTERRUPT_STATUS), 0U) << "a reset clears it";
}

TEST_F(VirtioMmioTest, ARingThatCannotBeAsksForAReset) {
  negotiate();
  set_up(0);
  set_up(1, 0x1'0008);  // not the 8 of its low half
  run();
  EXPECT_EQ(in(STATUS), kRunning | kNeedsReset);
  EXPECT_EQ(in(INTERRUPT_STATUS), kConfig);
  EXPECT_EQ(edges(), 1U);
  EXPECT_THAT(device.take_log(), ElementsAre("start 4294967296", "start 0 size 8"));
  out(QUEUE_NOTIFY, 0);
  running.settle();
  EXPECT_THAT(device.take_log(), ElementsAre("notified 0"));
  out(STATUS, 0);
  EXPECT_EQ(in(STATUS), 0U);
  EXPECT_EQ(in(INTERRUPT_STATUS), 0U);
}

TEST_F(VirtioMmioTest, NotificationsArriveByDoorbellOrByExit) {
  ASSERT_EQ(bells.all.size(), 3U);
  negotiate();
  set_up(0);
  set_up(2);
  run();
  device.take_log();
  for (const auto& [addr, value, eventfd] : bells.all) {
    EXPECT_EQ(addr, raw(kBase) + QUEUE_NOTIFY);
    signal_eventfd(eventfd);
    running.settle();
    EXPECT_EQ(device.take_log(), value == 1 ? Log{} : Log{"notified " + std::to_string(value)});
  }
  out(QUEUE_NOTIFY, 2);
  running.settle();
  EXPECT_THAT(device.take_log(), ElementsAre("notified 2"));
  for (const std::uint32_t index : {1U, 3U, 0xffffU, 0x10000U, 0x8000'0000U, ~0U}) {
    out(QUEUE_NOTIFY, index);
  }
  out(QUEUE_NOTIFY, 2, 2);
  running.settle();
  EXPECT_THAT(device.take_log(), IsEmpty());
}

TEST_F(VirtioMmioTest, TakesItsDoorbellsDown) {
  mmio.reset();
  EXPECT_TRUE(bells.all.empty());
  bells.room = 1;  // and the host refuses the next one
  mmio.emplace(VirtioMmio::Wiring{
      .device = device, .memory = memory, .loop = loop, .irq = irq, .doorbells = bells, .base = kBase});
  EXPECT_EQ(bells.all.size(), 1U);
  mmio.reset();
  EXPECT_TRUE(bells.all.empty());
}

TEST_F(VirtioMmioTest, ConfigurationSpaceTakesAnyWidth) {
  for (std::size_t i = 0; i < device.config.size(); ++i) {
    device.config.at(i) = std::byte{static_cast<std::uint8_t>(i + 1)};
  }
  EXPECT_EQ(in(CONFIG, 1), 0x01U);
  EXPECT_EQ(in(CONFIG + 1, 2), 0x0302U);
  EXPECT_EQ(in(CONFIG + 2, 4), 0x06050403U);
  EXPECT_EQ(device.config_accesses, 3U);
  EXPECT_EQ(in(CONFIG, 8), 0x0000060504030201U);
  EXPECT_EQ(device.config_accesses, 5U) << "as two";
  EXPECT_EQ(in(CONFIG + 6, 4), 0U);
  EXPECT_EQ(in(VirtioMmio::kSize - 8, 8), 0U);
  out(CONFIG + 4, 0xa4a3a2a1, 4);
  out(CONFIG + 1, 0xb2b1, 2);
  out(CONFIG, 0xc1, 1);
  EXPECT_EQ(in(CONFIG, 8), 0x0000a2a104b2b1c1U);
  out(CONFIG, 0x0807060504030201, 8);
  EXPECT_EQ(in(CONFIG, 8), 0x0000060504030201U);
  device.generation = 7;
  EXPECT_EQ(in(CONFIG_GENERATION), 7U);
}

TEST_F(VirtioMmioTest, TheQueueSelectorMayBeAnything) {
  negotiate(kVersion1 | kRingReset);
  run();
  device.take_log();
  for (const std::uint32_t index : {3U, 0xffffU, 0x10000U, 0x10001U, 0x8000'0000U, ~0U}) {
    set_up(index);
    EXPECT_EQ(in(QUEUE_NUM_MAX), 0U);
    EXPECT_EQ(in(QUEUE_READY), 0U);
    out(QUEUE_READY, 0);
    out(QUEUE_RESET, 1);
    EXPECT_EQ(in(QUEUE_RESET), 0U);
  }
  EXPECT_THAT(device.take_log(), IsEmpty());
}

TEST_F(VirtioMmioTest, AQueueIsResetAndComesBackWithAnotherSize) {
  negotiate(kVersion1 | kRingReset);
  set_up(0);
  set_up(1, 128);
  run();
  device.take_log();
  out(QUEUE_RESET, 0);
  EXPECT_EQ(in(QUEUE_READY), 1U);
  out(QUEUE_RESET, 1);
  EXPECT_EQ(in(QUEUE_RESET), 0U);
  EXPECT_EQ(in(QUEUE_READY), 0U);
  set_up(1, 32);
  EXPECT_EQ(in(QUEUE_READY), 1U);
  EXPECT_THAT(device.take_log(), ElementsAre("stop 1", "start 1 size 32"));
  out(QUEUE_READY, 2);
  EXPECT_THAT(device.take_log(), IsEmpty());
  out(QUEUE_READY, 0);
  EXPECT_EQ(in(QUEUE_READY), 0U);
  EXPECT_THAT(device.take_log(), ElementsAre("stop 1"));
}

TEST_F(VirtioMmioTest, AResetInFlightEndsItAll) {
  device.holds = true;
  for (const std::uint32_t size : {8U, 4U, 16U}) {
    negotiate();
    set_up(2, size);
    run();
    offer(2);
    running.settle();
    EXPECT_THAT(device.take_log(),
                ElementsAre("start 4294967296", "start 2 size " + std::to_string(size), "notified 2", "holds 2"));
    EXPECT_EQ(used_index(2), 0U);
    out(STATUS, 0);
    EXPECT_EQ(in(STATUS), 0U);
    EXPECT_EQ(in(INTERRUPT_STATUS), 0U);
    EXPECT_THAT(device.take_log(), ElementsAre("stop"));
  }
}

TEST_F(VirtioMmioTest, AQueueResetInFlightComesBackWithAnotherSize) {
  device.holds = true;
  negotiate(kVersion1 | kRingReset);
  set_up(0);
  set_up(2, 8);
  run();
  device.take_log();
  for (const std::uint32_t size : {4U, 16U, 2U}) {
    offer(0);
    offer(2);
    running.settle();
    EXPECT_THAT(device.take_log(), ::testing::IsSupersetOf({"holds 2"}));
    out(QUEUE_SEL, 2);
    out(QUEUE_RESET, 1);
    EXPECT_THAT(device.take_log(), ElementsAre("stop 2"));
    EXPECT_EQ(used_index(0), 0U) << "the other queue's request is still in flight";
    set_up(2, size);
    EXPECT_THAT(device.take_log(), ElementsAre("start 2 size " + std::to_string(size)));
  }
}

TEST_F(VirtioMmioTest, AStatusThatIsNoneChangesNothing) {
  negotiate();
  run();
  out(STATUS, 0x100);
  out(STATUS, 0x8000'0000);
  EXPECT_EQ(in(STATUS), kRunning);
}

/// §4.2.2.2: the driver must use 32-bit aligned accesses for the registers.
TEST_F(VirtioMmioTest, RegistersIgnoreOtherWidths) {
  negotiate();
  set_up(0);
  run();
  device.interrupt([](DriverInterrupts& driver) { driver.queue_used(0); });
  device.take_log();
  const auto snapshot = [&] {
    std::vector<std::uint64_t> all;
    for (std::uint64_t reg = 0; reg < CONFIG; reg += 4) {
      all.push_back(in(reg));
    }
    return all;
  };
  const auto before = snapshot();
  for (const std::size_t width : {1U, 2U, 4U, 8U}) {
    for (std::uint64_t offset = 0; offset < CONFIG; ++offset) {
      if (width != 4 || offset % 4 != 0) {
        EXPECT_EQ(in(offset, width), 0U);
        out(offset, 0, width);
        out(offset, ~0ULL, width);
      }
    }
  }
  EXPECT_EQ(snapshot(), before);
  EXPECT_THAT(device.take_log(), IsEmpty());
}

}  // namespace
}  // namespace martlet::virtio
