#include "vmm/base/bus.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <stdexcept>

namespace martlet {
namespace {

struct Silent final : BusDevice {
  void read(std::uint64_t, std::span<std::byte>) noexcept override {}
  void write(std::uint64_t, std::span<const std::byte>) noexcept override {}
};

struct Registers final : ByteDevice {
  std::array<std::uint8_t, 8> values{0, 1, 2, 3, 4, 5, 6, 7};

 private:
  std::uint8_t read_register(std::uint64_t offset) noexcept override { return values.at(offset); }
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override { values.at(offset) = value; }
};

TEST(Bus, FindsEachDeviceByEveryAddressItOwns) {
  Bus bus;
  std::array<Silent, 128> devices;
  for (std::size_t i = devices.size(); i-- > 0;) {
    bus.insert(0x1000 + i * 0x10, 8, "device", devices[i]);
  }
  Bus::LastHit last;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    for (std::uint64_t offset = 0; offset < 0x10; ++offset) {
      const auto* entry = bus.find(0x1000 + i * 0x10 + offset, 1, last);
      if (offset < 8) {
        ASSERT_NE(entry, nullptr);
        EXPECT_EQ(entry->device, &devices[i]);
      } else {
        EXPECT_EQ(entry, nullptr);
      }
    }
  }
}

TEST(Bus, AnAccessMustLieWhollyInsideOneRange) {
  Bus bus;
  Silent a;
  Silent b;
  bus.insert(0x10, 4, "a", a);
  bus.insert(0x14, 4, "b", b);
  Bus::LastHit last;
  EXPECT_NE(bus.find(0x10, 4, last), nullptr);
  EXPECT_EQ(bus.find(0x12, 4, last), nullptr) << "straddles two devices";
  EXPECT_EQ(bus.find(0x16, 4, last), nullptr);
  EXPECT_EQ(bus.find(0xf, 2, last), nullptr);
  EXPECT_EQ(bus.find(std::numeric_limits<std::uint64_t>::max(), 8, last), nullptr);
}

TEST(Bus, AnEmptyBusAnswersNothing) {
  const Bus bus;
  Bus::LastHit last;
  EXPECT_EQ(bus.find(0, 1, last), nullptr);
}

TEST(Bus, RefusesOverlapsAndNamesBoth) {
  Bus bus;
  Silent device;
  bus.insert(0x100, 0x10, "first", device);
  for (const auto& [start, size] :
       {std::pair{0x100U, 1U}, {0x10fU, 1U}, {0xf8U, 9U}, {0U, 0x1000U}, {0x108U, 0x100U}}) {
    try {
      bus.insert(start, size, "second", device);
      ADD_FAILURE() << std::hex << start;
    } catch (const std::logic_error& error) {
      EXPECT_NE(std::string{error.what()}.find("first"), std::string::npos);
      EXPECT_NE(std::string{error.what()}.find("second"), std::string::npos);
    }
  }
  EXPECT_THROW(bus.insert(0x200, 0, "empty", device), std::logic_error);
  EXPECT_THROW(bus.insert(std::numeric_limits<std::uint64_t>::max(), 2, "wraps", device), std::logic_error);
  EXPECT_NO_THROW(bus.insert(0xf0, 0x10, "before", device));
  EXPECT_NO_THROW(bus.insert(0x110, 1, "after", device));
  EXPECT_NO_THROW(bus.insert(std::numeric_limits<std::uint64_t>::max(), 1, "last byte", device));
}

TEST(Bus, TakesNothingOnceFrozen) {
  Bus bus;
  Silent device;
  bus.insert(0x100, 1, "early", device);
  bus.freeze();
  EXPECT_THROW(bus.insert(0x200, 1, "late", device), std::logic_error);
  Bus::LastHit last;
  EXPECT_NE(bus.find(0x100, 1, last), nullptr);
}

TEST(ByteDevice, WideAccessesReachNeighbouringRegistersLowByteFirst) {
  Registers device;
  std::array<std::byte, 4> data{};
  device.read(2, data);
  EXPECT_EQ(data, (std::array{std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}}));
  device.write(0, std::array{std::byte{9}, std::byte{8}});
  EXPECT_EQ(device.values[0], 9);
  EXPECT_EQ(device.values[1], 8);
}

}  // namespace
}  // namespace martlet
