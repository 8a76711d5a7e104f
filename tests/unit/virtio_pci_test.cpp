#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "devices/virtio/pci.h"
#include "tests/unit/virtio_pci_guest.h"

namespace martlet::virtio {
namespace {

using pci_layout::offset_of;
using pci_layout::Page;

class VirtioPciTest : public testing::Test, protected VirtioPciMachine {
 protected:
  /// What the device gave back: its one byte.
  [[nodiscard]] bool answered(std::uint16_t queue) {
    const auto used = driver.take_used(queue);
    return used && used->written == 1 && used->data.at(0).at(0) == AnsweringDevice::kAnswer;
  }
};

TEST(VirtioPciIdentity, IsThatOfQemusModernDevices) {
  const auto check = [](DeviceId id, std::uint16_t device, std::uint32_t class_code) {
    const VirtioPciMachine machine{{16}, id};
    EXPECT_EQ(machine.guest.config<std::uint16_t>(pci::kVendorId), 0x1af4);
    EXPECT_EQ(machine.guest.config<std::uint16_t>(pci::kDeviceId), device);
    EXPECT_EQ(machine.guest.config<std::uint32_t>(pci::kRevision), class_code << 8U | 1U);
    EXPECT_EQ(machine.guest.config<std::uint32_t>(pci::kSubsystemVendorId), 0x1100'1af4U);
    EXPECT_EQ(machine.guest.config<std::uint8_t>(pci::kInterruptPin), pci::kPinA);
  };
  check(DeviceId::Net, 0x1041, 0x020000);
  check(DeviceId::Block, 0x1042, 0x010000);
  check(DeviceId::Console, 0x1043, 0x078000);
  check(DeviceId::Entropy, 0x1044, 0x00ff00);
}

TEST_F(VirtioPciTest, CapabilitiesLeadToDistinctPagesOfTheBar) {
  struct Found {
    std::uint8_t length, type, bar;
    std::uint32_t offset, size;
  };
  std::vector<Found> all;
  for (const auto at : guest.capabilities(0x09)) {
    EXPECT_EQ(at % 4, 0);
    all.push_back({.length = guest.config<std::uint8_t>(at + 2U),
                   .type = guest.config<std::uint8_t>(at + 3U),
                   .bar = guest.config<std::uint8_t>(at + 4U),
                   .offset = guest.config<std::uint32_t>(at + 8U),
                   .size = guest.config<std::uint32_t>(at + 12U)});
    if (all.back().type == 2) {
      EXPECT_EQ(guest.config<std::uint32_t>(at + 16U), 4U) << "notify_off_multiplier";
    }
  }
  ASSERT_EQ(all.size(), 5U);
  const std::array<std::array<std::uint32_t, 4>, 5> expected{
      {{1, 0x0000, 0x3c, 16}, {3, 0x1000, 1, 16}, {4, 0x2000, 0x1000, 16}, {2, 0x3000, 8, 20}, {5, 0, 0, 20}}};
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].type, expected[i][0]);
    EXPECT_EQ(all[i].bar, 0);
    EXPECT_EQ(all[i].offset, expected[i][1]);
    EXPECT_EQ(all[i].size, expected[i][2]);
    EXPECT_EQ(all[i].length, expected[i][3]);
  }
  const auto msix = guest.capabilities(0x11);
  ASSERT_EQ(msix.size(), 1U);
  EXPECT_EQ(guest.config<std::uint16_t>(msix[0] + 2U), 2) << "three vectors: two queues and the configuration";
  EXPECT_EQ(guest.config<std::uint32_t>(msix[0] + 4U), 0x4000U);
  EXPECT_EQ(guest.config<std::uint32_t>(msix[0] + 8U), 0x5000U);
}

TEST_F(VirtioPciTest, ADriverStartsTheDeviceAndGetsItsAnswers) {
  enable_memory();
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueCount), 2);
  write<std::uint32_t>(reg::kDeviceFeatureSelect, 0);
  EXPECT_EQ(read<std::uint32_t>(reg::kDeviceFeature), 1U << 5U | kIndirectDescriptors | kEventIndex);
  write<std::uint32_t>(reg::kDeviceFeatureSelect, 1);
  EXPECT_EQ(read<std::uint32_t>(reg::kDeviceFeature), (kVersion1 | kRingPacked | kRingReset) >> 32U);
  write<std::uint32_t>(reg::kDeviceFeatureSelect, 2);
  EXPECT_EQ(read<std::uint32_t>(reg::kDeviceFeature), 0U);
  negotiate();
  EXPECT_EQ(status(), kAcknowledge | kDriver | kFeaturesOk);
  enable_queue(0);
  enable_queue(1);
  go();
  settle();
  ASSERT_NE(device.driver, nullptr);
  EXPECT_EQ(device.agreed, kVersion1 | kRingReset);
  EXPECT_EQ(device.queues.size(), 2U);

  for (const std::uint16_t queue : {std::uint16_t{0}, std::uint16_t{1}}) {
    const auto id = driver.chain(queue).readable("?").writable(1).submit();
    static_cast<void>(id);
    notify(queue);
    settle();
    EXPECT_TRUE(answered(queue));
  }
  status(0);
  EXPECT_EQ(status(), 0);
  settle();
  EXPECT_EQ(device.driver, nullptr);
}

TEST_F(VirtioPciTest, FieldsAnswerToTheirWidthOnly) {
  enable_memory();
  status(kAcknowledge);
  for (std::uint32_t offset = 0; offset < reg::kEnd; ++offset) {
    const bool byte = offset == reg::kStatus || offset == reg::kGeneration;
    const bool wide = offset % 4 == 0 && (offset < 16 || (offset >= reg::kQueueDesc && offset < reg::kQueueNotifyData));
    const bool half = offset % 2 == 0 && !byte && (offset < 16 ? false : offset < 32 || offset >= 56);
    const bool address = offset == 32 || offset == 40 || offset == 48;
    // What is not accepted neither reads nor writes anything: a write of a legal value by a wrong width.
    if (!byte) {
      EXPECT_EQ(read<std::uint8_t>(offset), 0) << offset;
      write<std::uint8_t>(offset, 1);
    }
    if (!half) {
      EXPECT_EQ(read<std::uint16_t>(offset), 0) << offset;
      write<std::uint16_t>(offset, 1);
    }
    if (!wide) {
      EXPECT_EQ(read<std::uint32_t>(offset), 0U) << offset;
      write<std::uint32_t>(offset, 1);
    }
    if (!address) {
      EXPECT_EQ(read<std::uint64_t>(offset), 0U) << offset;
      write<std::uint64_t>(offset, 1);
    }
  }
  EXPECT_EQ(status(), kAcknowledge);
  EXPECT_EQ(read<std::uint8_t>(reg::kGeneration), 0x34) << "its low byte";
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueSelect), 0);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueEnable), 0);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueSize), 16);
  EXPECT_EQ(read<std::uint64_t>(reg::kQueueDesc), 0U);
}

TEST_F(VirtioPciTest, AddressesMayBeWrittenInHalvesOrWhole) {
  enable_memory();
  for (const auto field : {reg::kQueueDesc, reg::kQueueDriver, reg::kQueueDevice}) {
    write<std::uint64_t>(field, 0x1122334455667788);
    EXPECT_EQ(read<std::uint32_t>(field), 0x55667788U);
    write<std::uint32_t>(field + 4, 0xaabbccdd);
    EXPECT_EQ(read<std::uint64_t>(field), 0xaabbccdd55667788U);
    write<std::uint32_t>(field, 1);
    EXPECT_EQ(read<std::uint64_t>(field), 0xaabbccdd00000001U);
  }
}

TEST_F(VirtioPciTest, QueueFieldsAreThoseOfTheSelectedQueue) {
  enable_memory();
  select(1);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueNotifyOff), 1);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueNotifyData), 1);
  write<std::uint16_t>(reg::kQueueSize, 8);
  select(0);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueSize), 16);
  for (const std::uint16_t absent : {std::uint16_t{2}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
    select(absent);
    EXPECT_EQ(read<std::uint16_t>(reg::kQueueSelect), absent);
    for (const auto field : {reg::kQueueSize, reg::kQueueEnable, reg::kQueueNotifyOff, reg::kQueueNotifyData,
                             reg::kQueueReset, reg::kQueueVector}) {
      write<std::uint16_t>(field, 1);
      EXPECT_EQ(read<std::uint16_t>(field), field == reg::kQueueVector ? VirtioPci::kNoVector : 0);
    }
    write<std::uint64_t>(reg::kQueueDesc, 1);
    EXPECT_EQ(read<std::uint64_t>(reg::kQueueDesc), 0U);
  }
}

TEST_F(VirtioPciTest, VectorsThatDoNotExistCannotBeChosen) {
  enable_memory();
  for (const auto field : {reg::kConfigVector, reg::kQueueVector}) {
    EXPECT_EQ(read<std::uint16_t>(field), VirtioPci::kNoVector);
    write<std::uint16_t>(field, 2);
    EXPECT_EQ(read<std::uint16_t>(field), 2);
    write<std::uint16_t>(field, 3);
    EXPECT_EQ(read<std::uint16_t>(field), VirtioPci::kNoVector);
    write<std::uint16_t>(field, 0);
  }
  status(0);
  EXPECT_EQ(read<std::uint16_t>(reg::kConfigVector), VirtioPci::kNoVector) << "a reset forgets them";
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueVector), VirtioPci::kNoVector);
}

TEST_F(VirtioPciTest, EveryRegisterAtEveryStatusWithHostileValuesHurtsNobody) {
  enable_memory();
  const std::array<unsigned, 7> statuses{0,  1,  kAcknowledge | kDriver, kAcknowledge | kDriver | kFeaturesOk, 15,
                                         79, 255};
  for (const auto wanted : statuses) {
    for (std::uint32_t offset = 0; offset < reg::kEnd; ++offset) {
      for (const std::uint64_t value : {0ULL, 1ULL, 0x7fffULL, 0xffffULL, 0xdeadbeefcafeULL, ~0ULL}) {
        status(0);
        negotiate();
        status(wanted);
        for (const std::uint16_t queue : {std::uint16_t{0}, std::uint16_t{7}}) {
          select(queue);
          write(offset, static_cast<std::uint8_t>(value));
          write(offset, static_cast<std::uint16_t>(value));
          write(offset, static_cast<std::uint32_t>(value));
          write(offset, value);
        }
        select(0);
        write<std::uint16_t>(reg::kQueueEnable, 1);
      }
    }
  }
  // And the device is as good as new.
  status(0);
  start();
  driver.chain(0).readable("?").writable(1).submit();
  notify(0);
  settle();
  EXPECT_TRUE(answered(0));
}

TEST_F(VirtioPciTest, RegistersOfAnEnabledQueueStay) {
  start();
  select(0);
  write<std::uint16_t>(reg::kQueueSize, 4);
  write<std::uint64_t>(reg::kQueueDesc, 0xbad0000);
  write<std::uint16_t>(reg::kQueueEnable, 0);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueSize), 16);
  EXPECT_EQ(read<std::uint64_t>(reg::kQueueDesc), raw(driver.setup(0).descriptors));
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueEnable), 1);
}

TEST_F(VirtioPciTest, ASingleQueueMayBeResetAndEnabledAgain) {
  start();
  EXPECT_EQ(doorbells.all().size(), 2U);
  select(1);
  write<std::uint16_t>(reg::kQueueVector, 1);
  write<std::uint16_t>(reg::kQueueReset, 1);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueReset), 0) << "done";
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueEnable), 0);
  EXPECT_EQ(read<std::uint16_t>(reg::kQueueVector), VirtioPci::kNoVector);
  EXPECT_EQ(doorbells.all().size(), 1U);
  settle();
  EXPECT_EQ(device.queues.size(), 1U);
  enable_queue(1);
  settle();
  EXPECT_EQ(device.queues.size(), 2U);
  EXPECT_EQ(doorbells.all().size(), 2U);
}

TEST_F(VirtioPciTest, DoorbellsFollowTheBar) {
  enable_memory();
  negotiate();
  EXPECT_TRUE(doorbells.all().empty());
  enable_queue(1);
  const auto at = page(Page::Notify) + 4;
  const auto first = doorbells.all();
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first.begin()->first, at);

  guest.move_bar(0, 0xd0000000);
  ASSERT_EQ(doorbells.all().size(), 1U);
  EXPECT_EQ(doorbells.all().begin()->first, 0xd0003004U);
  EXPECT_EQ(doorbells.all().begin()->second, first.begin()->second) << "the same eventfd";
  guest.move_bar(0, 0x1000);  // RAM: not ours to answer
  EXPECT_TRUE(doorbells.all().empty());
  guest.move_bar(0, 0xd0000000);
  EXPECT_EQ(doorbells.all().size(), 1U);
  guest.command(pci::kBusMaster);
  EXPECT_TRUE(doorbells.all().empty());
  guest.command(pci::kBusMaster | pci::kMemorySpace);
  EXPECT_EQ(doorbells.all().size(), 1U);
  status(0);
  EXPECT_TRUE(doorbells.all().empty());
  EXPECT_EQ(doorbells.lost, 0);
}

TEST_F(VirtioPciTest, ADoorbellIsAsGoodAsAnExit) {
  start();
  driver.chain(1).readable("?").writable(1).submit();
  signal_eventfd(doorbells.all().at(page(Page::Notify) + 4));
  settle();
  EXPECT_TRUE(answered(1));
  const auto before = device.notifications;
  guest.set_memory<std::uint16_t>(page(Page::Notify) + 2, 0);      // between two queues
  guest.set_memory<std::uint16_t>(page(Page::Notify) + 8, 2);      // behind the last
  guest.set_memory<std::uint32_t>(page(Page::Notify) + 0xffc, 0);  // far behind
  settle();
  EXPECT_EQ(device.notifications, before);
}

TEST_F(VirtioPciTest, WithoutDoorbellsNotificationsComeAsExits) {
  doorbells.refuse = true;
  start();
  driver.chain(0).readable("?").writable(1).submit();
  notify(0);
  settle();
  EXPECT_TRUE(answered(0));
  doorbells.refuse = false;
  guest.move_bar(0, 0xd0000000);
  EXPECT_EQ(doorbells.all().size(), 2U);
}

TEST_F(VirtioPciTest, TheConfigurationWindowReachesTheBar) {
  const auto at = guest.capabilities(0x09).at(4);  // memory decoding is off
  const auto aim = [&](std::uint32_t offset, std::uint32_t length, std::uint8_t bar = 0) {
    guest.set_config<std::uint8_t>(at + 4U, bar);
    guest.set_config<std::uint32_t>(at + 8U, offset);
    guest.set_config<std::uint32_t>(at + 12U, length);
  };
  aim(reg::kQueueCount, 2);
  EXPECT_EQ(guest.config<std::uint16_t>(at + 16U), 2);
  EXPECT_EQ(guest.port_config<std::uint16_t>(at + 16U), 2);
  aim(reg::kStatus, 1);
  guest.set_config<std::uint8_t>(at + 16U, kAcknowledge);
  EXPECT_EQ(guest.config<std::uint8_t>(at + 16U), kAcknowledge);
  EXPECT_EQ(function.status(), kAcknowledge);
  aim(offset_of(Page::Device) + 4, 4);
  guest.set_config<std::uint32_t>(at + 16U, 0x12345678);
  EXPECT_EQ(device.config[4], std::byte{0x78});
  EXPECT_EQ(guest.config<std::uint32_t>(at + 16U), 0x12345678U);

  // Nothing of this leads anywhere: the data reads back as it was.
  for (const auto& [offset, length, bar] :
       std::vector<std::tuple<std::uint32_t, std::uint32_t, std::uint8_t>>{{reg::kStatus, 3, 0},
                                                                           {reg::kStatus, 0, 0},
                                                                           {reg::kStatus, 8, 0},
                                                                           {reg::kStatus, 0xffffffff, 0},
                                                                           {reg::kStatus, 1, 1},
                                                                           {reg::kStatus + 1, 2, 0},
                                                                           {pci_layout::kBarSize, 4, 0},
                                                                           {0xfffffffc, 4, 0}}) {
    aim(offset, length, bar);
    guest.set_config<std::uint32_t>(at + 16U, 0xffffffff);
    EXPECT_EQ(guest.config<std::uint32_t>(at + 16U), 0xffffffffU);
  }
  EXPECT_EQ(function.status(), kAcknowledge);
  aim(reg::kEnd, 4);
  EXPECT_EQ(guest.config<std::uint32_t>(at + 16U), 0U) << "no register there";
}

TEST_F(VirtioPciTest, TakingBusMasteringAwayStopsTheDevice) {
  start();
  guest.command(pci::kMemorySpace);
  EXPECT_EQ(status(), 0);
  settle();
  EXPECT_EQ(device.driver, nullptr);
  enable_memory();
  status(kAcknowledge);
  guest.command(pci::kMemorySpace);
  EXPECT_EQ(status(), kAcknowledge) << "nothing to stop";
}

TEST_F(VirtioPciTest, CpusMayDoAsTheyLike) {
  const auto hammer = [&](std::uint16_t queue) {
    for (std::uint32_t i = 0; i < 300; ++i) {
      start();
      notify(queue);
      static_cast<void>(read_isr());
      use_msix();
      static_cast<void>(read<std::uint16_t>(reg::kQueueVector));
      guest.move_bar(0, 0xc0000000 + (i % 2) * pci_layout::kBarSize);
      select(queue);
      write<std::uint16_t>(reg::kQueueReset, 1);
      if (i % 3 == 0) {
        status(0);
      }
    }
  };
  std::thread other{hammer, std::uint16_t{1}};
  hammer(0);
  other.join();
  guest.move_bar(0, 0xc0000000);
  enable_memory();
  status(0);
  start();
  settle();
  EXPECT_EQ(device.queues.size(), 2U);
  EXPECT_EQ(doorbells.all().size(), 2U);
  EXPECT_EQ(doorbells.lost, 0);
  EXPECT_EQ(router.lost, 0);
}

}  // namespace
}  // namespace martlet::virtio
