#include <gtest/gtest.h>

#include <stdexcept>

#include "devices/pci/msix.h"
#include "tests/unit/pci_guest.h"

namespace martlet {
namespace {

constexpr std::uint16_t kEnable = 0x8000;
constexpr std::uint16_t kFunctionMask = 0x4000;
constexpr std::uint16_t kVectors = 70;

/// A driver's view of the table.
class MsixTest : public testing::Test {
 protected:
  MsixTest() { config_.set(pci::kCommand, std::uint16_t{pci::kBusMaster}); }

  void control(std::uint16_t bits) {
    config_.write(0x42, std::as_bytes(std::span{&bits, 1}));
    msix_.settle();
  }
  template <class T>
  void write(std::uint64_t offset, T value) {
    msix_.write_table(offset, std::as_bytes(std::span{&value, 1}));
  }
  template <class T>
  [[nodiscard]] T read(std::uint64_t offset) const {
    T value{};
    msix_.read_table(offset, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
  template <class T>
  [[nodiscard]] T pending(std::uint64_t offset) const {
    T value{};
    msix_.read_pending(offset, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
  void program(std::uint16_t vector, std::uint32_t data) {
    write<std::uint32_t>(vector * 16U, 0xfee00000);
    write<std::uint32_t>(vector * 16U + 4, 0);
    write<std::uint32_t>(vector * 16U + 8, data);
  }
  void mask(std::uint16_t vector, std::uint32_t masked) { write<std::uint32_t>(vector * 16U + 12, masked); }
  [[nodiscard]] const IrqLine& line(std::uint16_t vector) const { return *msix_.line(vector); }

  PciConfig config_{{}};
  FakeMsiRouter router_;
  Msix msix_{config_, router_, {.bar = 1, .table = 0x4000, .pending = 0x5000, .vectors = kVectors}};
};

TEST_F(MsixTest, IsSetUpAsLinuxDoesIt) {
  EXPECT_EQ(config_.get<std::uint16_t>(0x40), 0x0011);
  EXPECT_EQ(config_.get<std::uint16_t>(0x42), kVectors - 1);
  EXPECT_EQ(config_.get<std::uint32_t>(0x44), 0x4001U);
  EXPECT_EQ(config_.get<std::uint32_t>(0x48), 0x5001U);
  control(kEnable | kFunctionMask);
  for (std::uint16_t i = 0; i < kVectors; ++i) {
    EXPECT_EQ(read<std::uint32_t>(i * 16U + 12), Msix::kMasked) << "masked from reset";
    mask(i, 1);
  }
  control(kEnable);
  EXPECT_TRUE(msix_.enabled());
  program(3, 0x4021);
  EXPECT_EQ(router_.calls, 0) << "nothing to join before a vector is unmasked";
  mask(3, 0);
  EXPECT_EQ(router_.message(line(3)), (MsiMessage{.address = 0xfee00000, .data = 0x4021}));
  line(3).raise();
  EXPECT_EQ(router_.sent(), std::vector{0x4021U});
  EXPECT_EQ(router_.calls, 1);
}

TEST_F(MsixTest, WhatIsRaisedWhileMaskedIsPendingAndSentLater) {
  control(kEnable);
  program(0, 1);
  program(65, 2);
  line(65).raise();
  line(65).raise();
  EXPECT_EQ(pending<std::uint64_t>(8), 2U);
  EXPECT_EQ(pending<std::uint32_t>(8), 2U);
  EXPECT_EQ(pending<std::uint32_t>(12), 0U);
  EXPECT_EQ(pending<std::uint64_t>(0), 0U);
  EXPECT_TRUE(router_.sent().empty());
  mask(65, 0);
  EXPECT_EQ(pending<std::uint64_t>(8), 0U);
  EXPECT_EQ(router_.sent(), std::vector{2U}) << "once, however often it was raised";
  mask(65, 1);
  EXPECT_EQ(router_.message(line(65)), std::nullopt);
}

TEST_F(MsixTest, TheFunctionMaskAndBusMasteringHoldAllBack) {
  control(kEnable);
  program(0, 1);
  program(1, 2);
  mask(0, 0);
  mask(1, 0);
  EXPECT_EQ(router_.joined(), 2U);
  control(kEnable | kFunctionMask);
  EXPECT_EQ(router_.joined(), 0U);
  line(1).raise();
  EXPECT_EQ(pending<std::uint64_t>(0), 2U);
  control(kEnable);
  EXPECT_EQ(router_.sent(), std::vector{2U});

  config_.set(pci::kCommand, std::uint16_t{0});
  msix_.settle();
  EXPECT_EQ(router_.joined(), 0U);
  EXPECT_TRUE(msix_.enabled());
}

TEST_F(MsixTest, DisablingForgetsWhatWasPending) {
  control(kEnable | kFunctionMask);
  line(0).raise();
  control(0);
  EXPECT_FALSE(msix_.enabled());
  control(kEnable | kFunctionMask);
  EXPECT_EQ(pending<std::uint64_t>(0), 0U);
}

TEST_F(MsixTest, TellsTheRouterOnlyOfChanges) {
  control(kEnable);
  program(5, 7);
  mask(5, 0);
  const int calls = router_.calls;
  mask(5, 0);
  program(5, 7);
  control(kEnable);
  EXPECT_EQ(router_.calls, calls);
  write<std::uint32_t>(5 * 16 + 8, 8);  // data of a vector that is not masked
  EXPECT_EQ(router_.calls, calls + 1);
  EXPECT_EQ(router_.message(line(5))->data, 8U);
  EXPECT_EQ(router_.lost, 0);
}

TEST_F(MsixTest, OnlyDoublewordsAndQuadwordsAreRegisters) {
  write<std::uint64_t>(0, 0x1'fee01000);
  write<std::uint64_t>(8, 0xffff'fffe'0000'0007);
  EXPECT_EQ(read<std::uint64_t>(0), 0x1'fee01000U);
  EXPECT_EQ(read<std::uint64_t>(8), 7U) << "all but the mask bit read as 0";
  write<std::uint8_t>(8, 0x55);
  write<std::uint16_t>(8, 0x5555);
  write<std::uint32_t>(10, 0x5555'5555);
  write<std::uint64_t>(4, 0);
  EXPECT_EQ(read<std::uint64_t>(8), 7U);
  EXPECT_EQ(read<std::uint8_t>(8), 0);
  EXPECT_EQ(read<std::uint16_t>(8), 0);
  EXPECT_EQ(read<std::uint32_t>(6), 0U);
  EXPECT_EQ(pending<std::uint8_t>(0), 0);
}

TEST_F(MsixTest, NothingBehindTheLastVector) {
  control(kEnable);
  constexpr std::uint64_t kEnd = kVectors * 16U;
  for (const std::uint64_t offset : {kEnd, kEnd + 8, std::uint64_t{0xff8}, ~std::uint64_t{7}}) {
    write<std::uint64_t>(offset, ~std::uint64_t{0});
    EXPECT_EQ(read<std::uint64_t>(offset), 0U);
    EXPECT_EQ(pending<std::uint64_t>(offset), 0U);
  }
  EXPECT_EQ(msix_.line(kVectors), nullptr);
  EXPECT_EQ(msix_.line(0xffff), nullptr);
  EXPECT_EQ(router_.calls, 0);
}

TEST(Msix, LeavesNoLineJoinedAndRefusesTooManyVectors) {
  FakeMsiRouter router;
  PciConfig config{{}};
  config.set(pci::kCommand, std::uint16_t{pci::kBusMaster});
  {
    Msix msix{config, router, {.vectors = 1}};
    const std::uint16_t enable = kEnable;
    config.write(0x42, std::as_bytes(std::span{&enable, 1}));
    msix.settle();
    const std::uint32_t unmasked = 0;
    msix.write_table(12, std::as_bytes(std::span{&unmasked, 1}));
    EXPECT_EQ(router.joined(), 1U);
  }
  EXPECT_EQ(router.joined(), 0U);
  EXPECT_THROW(Msix(config, router, {.vectors = Msix::kMaxVectors + 1}), std::logic_error);
  EXPECT_THROW(Msix(config, router, {.vectors = 0}), std::logic_error);
}

}  // namespace
}  // namespace martlet
