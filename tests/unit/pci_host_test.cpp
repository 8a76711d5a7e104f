#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <thread>

#include "devices/pci/host.h"
#include "tests/unit/pci_guest.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::uint32_t kSmallBar = 0x1000;
constexpr std::uint32_t kLargeBar = 0x4000;
constexpr std::uint32_t kOnes = 0xffff'ffff;

/// RAM behind BARs 0 and 2.
class TestFunction final : public PciFunction {
 public:
  TestFunction()
      : PciFunction{{.vendor = 0x1af4,
                     .device = 0x1041,
                     .revision = 1,
                     .class_code = 0x020000,
                     .subsystem_vendor = 0x1af4,
                     .subsystem = 0x1100}} {
    config_.add_bar(0, kSmallBar);
    config_.add_bar(2, kLargeBar);
  }
  PciConfig& config() { return config_; }
  [[nodiscard]] std::optional<GuestAddr> address(unsigned bar) const { return bar_address(bar); }
  bool wants_interrupt = false;
  int told = 0;

 private:
  void on_bar_read(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept override {
    for (auto& byte : into) {
      byte = memory_[bar].at(offset++);
    }
  }
  void on_bar_write(unsigned bar, std::uint64_t offset, std::span<const std::byte> bytes) noexcept override {
    for (const auto byte : bytes) {
      memory_[bar].at(offset++) = byte;
    }
  }
  void on_config_written(std::uint32_t /*offset*/, std::size_t /*length*/) noexcept override { ++told; }
  [[nodiscard]] bool interrupting() const noexcept override { return wants_interrupt; }

  std::array<std::array<std::byte, kLargeBar>, 3> memory_{};
};

class PciHostTest : public testing::Test {
 protected:
  TestFunction first_;
  TestFunction second_;
  PciHost host_{kPciWindow};
  PciGuest one_{host_, host_.add(first_)};
  PciGuest two_{host_, host_.add(second_)};
};

TEST_F(PciHostTest, IsEnumeratedAsLinuxDoesIt) {
  // pci_check_type1: the address register is there, and nothing but 32 bits at once reaches it.
  store<std::uint8_t>(host_.address_port(), 3, 1);
  store<std::uint32_t>(host_.address_port(), 0, 0x80000000);
  EXPECT_EQ(load<std::uint32_t>(host_.address_port(), 0), 0x80000000U);
  // pci_scan_slot: a header behind 1 and 2, nothing from 3 on.
  const PciGuest bridge{host_, 0};
  EXPECT_EQ(bridge.config<std::uint32_t>(pci::kVendorId), 0x0008'1b36U);
  EXPECT_EQ(bridge.config<std::uint32_t>(pci::kRevision) >> 8U, 0x060000U);
  EXPECT_EQ(bridge.config<std::uint8_t>(pci::kInterruptPin), 0);
  for (const auto* guest : {&one_, &two_}) {
    EXPECT_EQ(guest->config<std::uint32_t>(pci::kVendorId), 0x1041'1af4U);
    EXPECT_EQ(guest->config<std::uint8_t>(0x0e), 0) << "one function, header type 0";
    EXPECT_EQ(guest->config<std::uint32_t>(pci::kSubsystemVendorId), 0x1100'1af4U);
    EXPECT_EQ(guest->config<std::uint32_t>(0x100), 0U) << "no extended capabilities";
  }
  for (std::uint8_t device = 3; device < PciHost::kDevices; ++device) {
    EXPECT_EQ(PciGuest(host_, device).config<std::uint32_t>(pci::kVendorId), kOnes);
    EXPECT_EQ(PciGuest(host_, device).port_config<std::uint32_t>(pci::kVendorId), kOnes);
  }
  EXPECT_EQ(load<std::uint32_t>(host_.ecam(), (1U << 15U) + (1U << 12U)), kOnes) << "function 1";
}

TEST_F(PciHostTest, FirmwareHasPlacedTheBarsAndNotedTheInterrupts) {
  EXPECT_EQ(one_.bar(0), 0xc0000000U);
  EXPECT_EQ(one_.bar(2), 0xc0004000U) << "aligned to its size";
  EXPECT_EQ(two_.bar(0), 0xc0008000U);
  EXPECT_EQ(one_.config<std::uint8_t>(pci::kInterruptLine), 17);
  EXPECT_EQ(two_.config<std::uint8_t>(pci::kInterruptLine), 18);
  EXPECT_EQ(PciHost::gsi(4), 16U);
  EXPECT_EQ(one_.config<std::uint16_t>(pci::kCommand), 0) << "decoding is the guest's to enable";
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0000000), kOnes);
}

TEST_F(PciHostTest, BarsSayTheirSizes) {
  const auto size = [&](unsigned bar) {
    const auto before = one_.bar(bar);
    one_.move_bar(bar, kOnes);
    const auto mask = one_.config<std::uint32_t>(pci::kBars + 4 * bar);
    one_.move_bar(bar, before);
    EXPECT_EQ(one_.bar(bar), before);
    return mask == 0 ? 0 : ~mask + 1;
  };
  EXPECT_EQ(size(0), kSmallBar);
  EXPECT_EQ(size(1), 0U);
  EXPECT_EQ(size(2), kLargeBar);
  one_.set_config(0x30, kOnes);
  EXPECT_EQ(one_.config<std::uint32_t>(0x30), 0U) << "no expansion ROM";
}

TEST_F(PciHostTest, BarsAnswerWhereTheyAreWhileDecodingIsOn) {
  one_.command(pci::kMemorySpace);
  one_.set_memory<std::uint32_t>(0xc0000ffc, 0x12345678);
  EXPECT_EQ(one_.memory<std::uint16_t>(0xc0000ffe), 0x1234);
  EXPECT_EQ(one_.memory<std::uint64_t>(0xc0000ffc), ~std::uint64_t{0}) << "over its end";
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0001000), kOnes) << "between the BARs";

  one_.move_bar(0, 0xd0000123);  // the low bits are not there
  EXPECT_EQ(one_.bar(0), 0xd0000000U);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0000ffc), kOnes);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xd0000ffc), 0x12345678U);
  EXPECT_EQ(first_.address(0), GuestAddr{0xd0000000});

  one_.command(0);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xd0000ffc), kOnes);
  EXPECT_EQ(first_.address(0), std::nullopt);
  EXPECT_EQ(first_.told, 3);
}

TEST_F(PciHostTest, BarsOutsideTheWindowOrOverOneAnotherAreHarmless) {
  one_.command(pci::kMemorySpace);
  two_.command(pci::kMemorySpace);
  for (const std::uint32_t outside : {0U, 0x1000U, 0xbffff000U, 0xe0000000U, 0xfee00000U, 0xfffff000U}) {
    one_.move_bar(0, outside);
    EXPECT_EQ(first_.address(0), std::nullopt) << std::hex << outside;
  }
  one_.move_bar(0, 0xc0010000);
  two_.move_bar(2, 0xc0010000);
  two_.set_memory<std::uint32_t>(0xc0010000, 1);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0010000), 1U);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0011000), 0U) << "the larger one behind";
  one_.command(0);
  EXPECT_EQ(one_.memory<std::uint32_t>(0xc0010000), 0U) << "the first one had taken the write";
}

TEST_F(PciHostTest, OnlyWritableBitsChange) {
  std::array<std::uint32_t, 64> before{};
  for (std::uint32_t i = 0; i < 64; ++i) {
    before[i] = one_.config<std::uint32_t>(4 * i);
  }
  for (std::uint32_t offset = 0; offset < 0x1000; offset += 4) {
    one_.set_config(offset, kOnes);
  }
  for (std::uint32_t i = 0; i < 64; ++i) {
    std::uint32_t changed = 0;
    switch (4 * i) {
      case pci::kCommand:
        changed = pci::kMemorySpace | pci::kBusMaster | pci::kInterruptDisable;
        break;
      case pci::kCacheLineSize:
      case pci::kInterruptLine & ~3:
        changed = 0xff;
        break;
      case pci::kBars:
        changed = ~(kSmallBar - 1);
        break;
      case pci::kBars + 8:
        changed = ~(kLargeBar - 1);
        break;
      default:
        break;
    }
    EXPECT_EQ(one_.config<std::uint32_t>(4 * i), before[i] | changed) << std::hex << 4 * i;
  }
}

TEST_F(PciHostTest, PortsAndEcamAreTheSameRegisters) {
  for (std::uint32_t offset = 0; offset < 256; ++offset) {
    EXPECT_EQ(one_.port_config<std::uint8_t>(offset), one_.config<std::uint8_t>(offset));
    if (offset % 2 == 0) {
      EXPECT_EQ(one_.port_config<std::uint16_t>(offset), one_.config<std::uint16_t>(offset));
    }
    if (offset % 4 == 0) {
      EXPECT_EQ(one_.port_config<std::uint32_t>(offset), one_.config<std::uint32_t>(offset));
    }
  }
  one_.set_port_config<std::uint8_t>(pci::kInterruptLine, 0x5a);
  EXPECT_EQ(one_.config<std::uint8_t>(pci::kInterruptLine), 0x5a);
  one_.set_port_config<std::uint16_t>(pci::kBars + 2, 0xc123);
  EXPECT_EQ(one_.bar(0), 0xc1230000U);
}

TEST_F(PciHostTest, TheAddressPortAnswersOnlyAsAWhole) {
  store<std::uint32_t>(host_.address_port(), 0, kOnes);
  EXPECT_EQ(load<std::uint32_t>(host_.address_port(), 0), 0x80fffffcU);
  EXPECT_EQ(load<std::uint32_t>(host_.data_port(), 0), kOnes) << "another bus";
  for (const std::uint64_t offset : {0U, 1U, 2U, 3U}) {
    store<std::uint8_t>(host_.address_port(), offset, 0);
    EXPECT_EQ(load<std::uint8_t>(host_.address_port(), offset), 0xff);
  }
  store<std::uint16_t>(host_.address_port(), 0, 0);
  EXPECT_EQ(load<std::uint16_t>(host_.address_port(), 2), 0xffff);
  EXPECT_EQ(load<std::uint32_t>(host_.address_port(), 0), 0x80fffffcU);
  store<std::uint32_t>(host_.address_port(), 0, 1U << 11U);  // not enabled
  EXPECT_EQ(load<std::uint32_t>(host_.data_port(), 0), kOnes);
  store<std::uint32_t>(host_.address_port(), 0, 0x80000000U | 1U << 11U | 1U << 8U);  // function 1
  EXPECT_EQ(load<std::uint32_t>(host_.data_port(), 0), kOnes);
}

TEST_F(PciHostTest, AccessesOverTheEndOfAFunctionReachNobody) {
  const std::uint64_t end = (1U << 15U) + 0x1000U;
  EXPECT_EQ(load<std::uint64_t>(host_.ecam(), end - 4), ~std::uint64_t{0});
  store<std::uint64_t>(host_.ecam(), end - 4, 0);
  EXPECT_EQ(load<std::uint64_t>(host_.ecam(), (1U << 15U) + 0xfcU), 0U) << "over the end of what there is";
  EXPECT_EQ(load<std::uint64_t>(host_.ecam(), 1U << 15U), 0x0000'0000'1041'1af4U);
}

TEST_F(PciHostTest, TheStatusRegisterShowsAPendingInterrupt) {
  EXPECT_EQ(one_.config<std::uint16_t>(pci::kStatus), 0);
  first_.wants_interrupt = true;
  EXPECT_EQ(one_.config<std::uint16_t>(pci::kStatus), pci::kInterruptStatus);
  EXPECT_EQ(one_.config<std::uint8_t>(pci::kStatus), pci::kInterruptStatus);
  first_.wants_interrupt = false;
  EXPECT_EQ(one_.config<std::uint16_t>(pci::kStatus), 0);
}

TEST(PciHost, HasRoomFor31Devices) {
  PciHost host{kPciWindow};
  std::array<TestFunction, 32> functions;
  for (std::size_t i = 0; i < 31; ++i) {
    EXPECT_EQ(host.add(functions[i]), i + 1);
  }
  EXPECT_THROW(host.add(functions[31]), HostError);
  EXPECT_EQ(PciGuest(host, 31).config<std::uint16_t>(pci::kVendorId), 0x1af4);

  PciHost small{{.start = GuestAddr{0xc0000000}, .size = 0x5000}};
  TestFunction function;
  EXPECT_THROW(small.add(function), HostError);
}

TEST(PciConfig, RefusesWhatCannotBe) {
  PciConfig config{{}};
  config.add_bar(1, 16);
  EXPECT_THROW(config.add_bar(1, 16), std::logic_error);
  EXPECT_THROW(config.add_bar(6, 16), std::logic_error);
  EXPECT_THROW(config.add_bar(2, 8), std::logic_error);
  EXPECT_THROW(config.add_bar(2, 48), std::logic_error);
  const std::array<std::byte, 94> body{};
  EXPECT_EQ(config.add_capability(9, body), 0x40);
  EXPECT_EQ(config.add_capability(9, body), 0xa0);
  EXPECT_THROW(config.add_capability(9, {}), std::logic_error);
  EXPECT_EQ(config.get<std::uint8_t>(pci::kCapabilities), 0x40);
  EXPECT_EQ(config.get<std::uint16_t>(0x40), 0xa009);
  EXPECT_EQ(config.get<std::uint16_t>(0xa0), 0x0009);
  EXPECT_EQ(config.get<std::uint16_t>(pci::kStatus), pci::kCapabilityList);
}

TEST_F(PciHostTest, BarsMayMoveWhileOtherCpusUseThem) {
  std::thread mover{[&] {
    for (std::uint32_t i = 0; i < 2000; ++i) {
      one_.command(i % 3 == 0 ? 0 : pci::kMemorySpace);
      one_.move_bar(2, 0xc0100000 + (i % 2) * 0x1000);
    }
  }};
  std::thread user{[&] {
    for (std::uint32_t i = 0; i < 2000; ++i) {
      const auto read = one_.memory<std::uint32_t>(0xc0100000 + 4 * (i % 0x1400));
      EXPECT_TRUE(read == 0 || read == kOnes || read == 7);
      two_.set_memory<std::uint32_t>(0xc0100000 + 4 * (i % 0x1400), 7);
    }
  }};
  mover.join();
  user.join();
}

}  // namespace
}  // namespace martlet
