#include <gtest/gtest.h>
#include <poll.h>

#include <cstdint>
#include <vector>

#include "devices/virtio/pci.h"
#include "tests/unit/virtio_pci_guest.h"

namespace martlet::virtio {
namespace {

constexpr unsigned kRunning = pci::kMemorySpace | pci::kBusMaster;

class VirtioPciInterrupts : public testing::Test, protected VirtioPciMachine {
 protected:
  void start_with_msix() {
    enable_memory();
    use_msix();
    negotiate();
    write<std::uint16_t>(reg::kConfigVector, 0);
    enable_queue(0, 1);
    enable_queue(1, 2);
    go();
    settle();
  }
  void start_with_intx() {
    start();
    settle();
  }
  /// The wire, as an IO-APIC takes it.
  [[nodiscard]] bool intx() const { return drain_counter(function.intx().fd()) != 0; }
  /// The guest ends its interrupt.
  void end_of_interrupt() {
    signal_eventfd(function.intx().resampled());
    settle();
  }
};

TEST_F(VirtioPciInterrupts, EachQueueHasItsVector) {
  start_with_msix();
  device.driver->queue_used(0);
  EXPECT_EQ(router.sent(), std::vector{101U});
  device.driver->queue_used(1);
  EXPECT_EQ(router.sent(), std::vector{102U});
  device.driver->config_changed();
  EXPECT_EQ(router.sent(), std::vector{100U});
  device.driver->queue_used(2);
  EXPECT_TRUE(router.sent().empty());
  EXPECT_EQ(read_isr(), 0) << "MSI-X says it all";
  EXPECT_FALSE(intx());
}

TEST_F(VirtioPciInterrupts, ABackendMayRaiseTheVectorItself) {
  start_with_msix();
  signal_eventfd(device.driver->call_fd(1));
  EXPECT_EQ(router.sent(), std::vector{102U});
  EXPECT_EQ(device.driver->call_fd(7), -1);
  select(1);
  write<std::uint16_t>(reg::kQueueVector, VirtioPci::kNoVector);
  EXPECT_EQ(device.driver->call_fd(1), -1);
  device.driver->queue_used(1);
  EXPECT_TRUE(router.sent().empty()) << "no vector, no interrupt";
}

TEST_F(VirtioPciInterrupts, AMaskedVectorIsPending) {
  start_with_msix();
  const auto control = page(pci_layout::Page::MsixTable) + 16 + 12;
  const auto pending = page(pci_layout::Page::MsixPending);
  guest.set_memory<std::uint32_t>(control, 1);
  device.driver->queue_used(0);
  EXPECT_TRUE(router.sent().empty());
  EXPECT_EQ(guest.memory<std::uint64_t>(pending), 2U);
  guest.set_memory<std::uint32_t>(control, 0);
  EXPECT_EQ(router.sent(), std::vector{101U});
  EXPECT_EQ(guest.memory<std::uint64_t>(pending), 0U);
}

TEST_F(VirtioPciInterrupts, IntxSaysWhyAndReadingEndsIt) {
  start_with_intx();
  EXPECT_EQ(device.driver->call_fd(0), -1);
  device.driver->queue_used(1);
  EXPECT_TRUE(intx());
  EXPECT_EQ(guest.config<std::uint16_t>(pci::kStatus) & pci::kInterruptStatus, pci::kInterruptStatus);
  EXPECT_EQ(read_isr(), 1);
  EXPECT_EQ(read_isr(), 0);
  EXPECT_EQ(guest.config<std::uint16_t>(pci::kStatus) & pci::kInterruptStatus, 0);
  end_of_interrupt();
  EXPECT_FALSE(intx());
  device.driver->config_changed();
  device.driver->queue_used(0);
  EXPECT_EQ(read_isr(), 3);
}

TEST_F(VirtioPciInterrupts, IntxComesBackUntilItsReasonHasGone) {
  start_with_intx();
  device.driver->queue_used(0);
  EXPECT_TRUE(intx());
  end_of_interrupt();  // of another device on the same wire: ours has not been looked at
  EXPECT_TRUE(intx());
  EXPECT_EQ(read_isr(), 1);
  end_of_interrupt();
  EXPECT_FALSE(intx());
}

TEST_F(VirtioPciInterrupts, DisabledIntxWaits) {
  start_with_intx();
  guest.command(kRunning | pci::kInterruptDisable);
  device.driver->queue_used(0);
  end_of_interrupt();
  EXPECT_FALSE(intx());
  EXPECT_EQ(guest.config<std::uint16_t>(pci::kStatus) & pci::kInterruptStatus, pci::kInterruptStatus);
  guest.command(kRunning);
  EXPECT_TRUE(intx());
}

TEST_F(VirtioPciInterrupts, MsixTakesOverFromIntx) {
  start_with_intx();
  use_msix();
  device.driver->queue_used(0);
  EXPECT_FALSE(intx()) << "and it has no vector yet";
  EXPECT_TRUE(router.sent().empty());
  EXPECT_EQ(read_isr(), 0);
}

TEST_F(VirtioPciInterrupts, AResetForgetsTheReason) {
  start_with_intx();
  device.driver->queue_used(0);
  EXPECT_TRUE(intx());
  status(0);
  EXPECT_EQ(read_isr(), 0);
  end_of_interrupt();
  EXPECT_FALSE(intx());
}

TEST_F(VirtioPciInterrupts, NeedsResetIsToldOnce) {
  start_with_msix();
  device.driver->needs_reset();
  EXPECT_EQ(status() & kNeedsReset, kNeedsReset);
  EXPECT_EQ(router.sent(), std::vector{100U});
  device.driver->needs_reset();
  EXPECT_TRUE(router.sent().empty());
  status(0);
  EXPECT_EQ(status(), 0);
}

TEST_F(VirtioPciInterrupts, ARingThatCannotBeIsToldToo) {
  enable_memory();
  negotiate();
  select(0);
  write<std::uint64_t>(reg::kQueueDesc, FakeDriver::kHole);
  write<std::uint16_t>(reg::kQueueEnable, 1);
  go();
  EXPECT_EQ(status() & kNeedsReset, kNeedsReset);
  EXPECT_EQ(read_isr(), 2);
  EXPECT_TRUE(intx());
}

TEST(VirtioPciVectors, AreAsManyAsATableHolds) {
  const VirtioPciMachine machine{std::vector<std::uint16_t>(300, 2)};
  const auto at = machine.guest.capabilities(0x11).at(0);
  EXPECT_EQ(machine.guest.config<std::uint16_t>(at + 2U) & 0x7ffU, 255U);
  machine.enable_memory();
  machine.select(299);
  machine.write<std::uint16_t>(reg::kQueueVector, 255);
  EXPECT_EQ(machine.read<std::uint16_t>(reg::kQueueVector), 255);
  machine.write<std::uint16_t>(reg::kQueueVector, 256);
  EXPECT_EQ(machine.read<std::uint16_t>(reg::kQueueVector), VirtioPci::kNoVector);
}

}  // namespace
}  // namespace martlet::virtio
