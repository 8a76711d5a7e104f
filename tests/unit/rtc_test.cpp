#include "devices/rtc.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

namespace martlet {
namespace {

using namespace std::chrono_literals;
using namespace std::chrono;

struct Cmos : ::testing::Test {
  unsigned read(unsigned index) {
    select(index);
    std::byte value{};
    rtc.read(1, {&value, 1});
    return std::to_integer<unsigned>(value);
  }
  void write(unsigned index, unsigned value) {
    select(index);
    const auto byte = static_cast<std::byte>(value);
    rtc.write(1, {&byte, 1});
  }
  void select(unsigned index) {
    const auto byte = static_cast<std::byte>(index);
    rtc.write(0, {&byte, 1});
  }
  /// Century, year, month, day, hour, minute, second as they stand in the registers.
  std::array<unsigned, 7> time() {
    EXPECT_EQ(read(0x0a) & 0x80, 0U) << "update in progress";
    return {read(0x32), read(9), read(8), read(7), read(4), read(2), read(0)};
  }
  void set(const std::array<unsigned, 7>& to) {
    const auto b = read(0x0b);
    write(0x0b, b | 0x80);
    const std::array<unsigned, 7> index{0x32, 9, 8, 7, 4, 2, 0};
    for (std::size_t i = 0; i < index.size(); ++i) {
      write(index[i], to[i]);
    }
    write(0x0b, b & 0x7f);
  }

  using Fields = std::array<unsigned, 7>;
  milliseconds now = sys_days{2024y / February / 29}.time_since_epoch() + 23h + 59min + 58s + 999ms;
  Rtc rtc{[this] { return now; }};
};

TEST_F(Cmos, TellsTheHostsTimeInBcd) {
  EXPECT_EQ(time(), (Fields{0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58}));
  EXPECT_EQ(read(6), 5U) << "Thursday";
  now += 2s;
  EXPECT_EQ(time(), (Fields{0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00}));
  EXPECT_EQ(read(0x0d), 0x80U);
  EXPECT_EQ(read(0x0c), 0U);
  EXPECT_EQ(read(0x0b), 0x02U) << "24 hours: rtc-cmos insists";
}

TEST_F(Cmos, TellsItInBinaryAndInTwelveHours) {
  write(0x0b, 0x06);
  EXPECT_EQ(time(), (Fields{20, 24, 2, 29, 23, 59, 58}));
  write(0x0b, 0x00);
  EXPECT_EQ(read(4), 0x91U) << "11 p.m.";
  now += 1h;
  EXPECT_EQ(time(), (Fields{0x20, 0x24, 0x03, 0x01, 0x12, 0x59, 0x58})) << "12 a.m.";
  now += 12h;
  EXPECT_EQ(time()[4], 0x92U) << "12 p.m.";
  write(0x0b, 0x04);
  now += 1h;
  EXPECT_EQ(time()[4], 0x81U);
}

TEST_F(Cmos, AnUpdateCheckHoldsTheTimeStill) {
  now = sys_days{2024y / December / 31}.time_since_epoch() + 23h + 59min + 59s + 999ms;
  read(0x0a);
  EXPECT_EQ(read(0), 0x59U);
  now += 2ms;
  EXPECT_EQ(read(9), 0x24U);
  EXPECT_EQ(read(2), 0x59U);
  now += 10ms;
  EXPECT_EQ(read(9), 0x25U);
  EXPECT_EQ(read(0), 0x00U) << "a guest that never checks sees time pass, too";
}

TEST_F(Cmos, IsSetWithoutTouchingTheHost) {
  set({0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59});
  EXPECT_EQ(time(), (Fields{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}));
  now += 499ms;
  EXPECT_EQ(time()[6], 0x59U);
  now += 1ms;  // the first update comes half a second after
  EXPECT_EQ(time(), (Fields{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}));
  now += 24h;
  EXPECT_EQ(time()[3], 0x02U);
}

TEST_F(Cmos, StandsStillWhileItIsSet) {
  write(0x0b, 0x82);
  const auto before = time();
  now += 1h;
  EXPECT_EQ(time(), before);
  write(2, 0x33);
  EXPECT_EQ(read(2), 0x33U);
}

TEST_F(Cmos, IsSetInTwelveHours) {
  write(0x0b, 0x00);
  set({0x20, 0x01, 0x02, 0x03, 0x92, 0x05, 0x06});
  write(0x0b, 0x02);
  EXPECT_EQ(time(), (Fields{0x20, 0x01, 0x02, 0x03, 0x12, 0x05, 0x06}));
}

TEST_F(Cmos, SingleRegistersCanBeSetWhileItRuns) {
  write(4, 0x05);
  EXPECT_EQ(time(), (Fields{0x20, 0x24, 0x02, 0x29, 0x05, 0x59, 0x58}));
  write(6, 1);
  EXPECT_EQ(read(6), 5U) << "follows from the date";
}

TEST_F(Cmos, ADateThatDoesNotExistChangesNothing) {
  const auto before = time();
  set({0x20, 0x23, 0x02, 0x29, 0x00, 0x00, 0x00});
  EXPECT_EQ(time(), before);
  set({0x20, 0x23, 0x13, 0x01, 0x00, 0x00, 0x00});
  EXPECT_EQ(time(), before);
  set({0x20, 0x23, 0x1f, 0x01, 0x25, 0x60, 0xff});
  EXPECT_EQ(time(), before);
}

TEST_F(Cmos, KeepsAlarmsAndRam) {
  for (unsigned index = 0x0e; index < 0x80; ++index) {
    if (index != 0x32) {
      write(index, index ^ 0x55);
    }
  }
  write(1, 0x12);
  for (unsigned index = 0x0e; index < 0x80; ++index) {
    if (index != 0x32) {
      EXPECT_EQ(read(index | 0x80), index ^ 0x55) << "bit 7 gates the NMI";
    }
  }
  EXPECT_EQ(read(1), 0x12U);
  std::byte index{};
  rtc.read(0, {&index, 1});
  EXPECT_EQ(index, std::byte{0xff});
}

TEST_F(Cmos, HostileEveryRegisterTimesEveryValueInEveryMode) {
  for (const unsigned mode : {0x00U, 0x02U, 0x04U, 0x06U, 0x80U, 0x82U, 0x84U, 0x86U}) {
    for (unsigned index = 0; index < 256; ++index) {
      for (unsigned value = 0; value < 256; ++value) {
        write(0x0b, mode);
        write(index, value);
        now += 12345678ms;
        read(index);
        write(0x0b, 0x02);
      }
    }
    for (unsigned index = 0; index < 0x80; ++index) {
      read(index);
    }
  }
  set({0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59});
  now += 1h * 24 * 365 * 500;
  time();
  set({0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00});
  now = -1h * 24 * 365 * 500;
  time();
}

TEST(Rtc, ThreadsAndTheHostsClock) {
  Rtc rtc;
  std::vector<std::jthread> threads;
  for (unsigned start = 0; start < 2; ++start) {
    threads.emplace_back([&rtc, start] {
      for (unsigned i = start; i < 30000; ++i) {
        auto byte = static_cast<std::byte>(i * 7);
        rtc.write(i % 2, {&byte, 1});
        rtc.read(1, {&byte, 1});
      }
    });
  }
}

}  // namespace
}  // namespace martlet
