#include "devices/exit_port.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "devices/pvpanic.h"

namespace martlet {
namespace {

template <class Device>
std::optional<Ending> write(std::uint64_t offset, std::uint64_t value, std::size_t size) {
  StopLine stop;
  Device device{stop};
  std::array<std::byte, 8> bytes;
  std::memcpy(bytes.data(), &value, bytes.size());
  device.write(offset, std::span{bytes}.first(size));
  return stop.ending();
}

TEST(ExitPort, GivesEveryCodeExactly) {
  for (unsigned code = 0; code < 256; ++code) {
    const auto ending = write<ExitPort>(0, code, 1);
    ASSERT_TRUE(ending);
    EXPECT_EQ(ending->kind, Ending::Kind::GuestExit);
    EXPECT_EQ(ending->code, static_cast<int>(code));
  }
}

TEST(ExitPort, TakesTheLowByteOfAWideWrite) {
  EXPECT_EQ(write<ExitPort>(0, 0xffff'ff07, 4)->code, 7);
  EXPECT_FALSE(write<ExitPort>(1, 7, 1));
  EXPECT_FALSE(write<ExitPort>(0, 7, 0));
}

TEST(IsaDebugExit, ShiftsAndSetsTheLowBit) {
  EXPECT_EQ(write<IsaDebugExit>(0, 0, 1)->code, 1);
  EXPECT_EQ(write<IsaDebugExit>(0, 0x10, 4)->code, 0x21);
  EXPECT_EQ(write<IsaDebugExit>(0, 0xff, 1)->code, 0xff);
  EXPECT_EQ(write<IsaDebugExit>(0, 0xffff'ff80, 4)->code, 0x01) << "modulo 256";
  EXPECT_EQ(write<IsaDebugExit>(3, 2, 1)->code, 5) << "as QEMU: the offset does not matter";
  EXPECT_EQ(write<IsaDebugExit>(0, 3, 8)->code, 7);
  EXPECT_EQ(write<IsaDebugExit>(0, 0xffff'ffff, 4)->detail, "by isa-debug-exit, value 4294967295");
}

TEST(IsaDebugExit, ReadsAsZero) {
  StopLine stop;
  IsaDebugExit device{stop};
  std::array<std::byte, 4> data{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  device.read(0, data);
  EXPECT_EQ(data, (std::array<std::byte, 4>{}));
}

TEST(PvPanic, EndsTheVmAtAPanicOnly) {
  for (unsigned value = 0; value < 256; ++value) {
    const auto ending = write<PvPanic>(0, value, 1);
    ASSERT_EQ(ending.has_value(), (value & 1) != 0) << value;
    if (ending) {
      EXPECT_EQ(ending->kind, Ending::Kind::Panic);
    }
  }
  StopLine stop;
  PvPanic device{stop};
  std::byte events{};
  device.read(0, {&events, 1});
  EXPECT_EQ(events, std::byte{3});
}

}  // namespace
}  // namespace martlet
