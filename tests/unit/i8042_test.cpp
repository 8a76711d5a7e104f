#include "devices/i8042.h"

#include <gtest/gtest.h>

namespace martlet {
namespace {

unsigned status(I8042& device) {
  std::byte value{};
  device.read(0, {&value, 1});
  return std::to_integer<unsigned>(value);
}

TEST(I8042, LetsLinuxGiveUpAtOnceAndResetAtOnce) {
  StopLine stop;
  I8042 device{stop};
  for (int i = 0; i < 17; ++i) {
    EXPECT_EQ(status(device) & 1, 1U) << "i8042_flush() must run out of patience";
  }
  EXPECT_EQ(status(device) & 2, 0U) << "kb_wait() must not wait";
}

TEST(I8042, OnlyAPulseOnTheResetLineResets) {
  for (unsigned value = 0; value < 256; ++value) {
    StopLine stop;
    I8042 device{stop};
    const auto byte = static_cast<std::byte>(value);
    device.write(0, {&byte, 1});
    EXPECT_EQ(stop.requested(), value >= 0xf0 && value % 2 == 0) << value;
    if (stop.requested()) {
      EXPECT_EQ(stop.ending()->kind, Ending::Kind::Reset);
      EXPECT_EQ(stop.ending()->detail, "by the i8042's reset line");
    }
  }
}

}  // namespace
}  // namespace martlet
