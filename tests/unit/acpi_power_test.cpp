#include "devices/acpi_power.h"

#include <gtest/gtest.h>

#include <thread>

namespace martlet {
namespace {

void out(BusDevice& device, std::uint64_t offset, unsigned value) {
  const auto byte = static_cast<std::byte>(value);
  device.write(offset, {&byte, 1});
}
unsigned in(BusDevice& device, std::uint64_t offset) {
  std::byte value{};
  device.read(offset, {&value, 1});
  return std::to_integer<unsigned>(value);
}

TEST(AcpiSleep, OnlyS5WithEnableSwitchesOff) {
  for (unsigned value = 0; value < 256; ++value) {
    StopLine stop;
    AcpiSleep device{stop};
    out(device, 1, 0x80);  // clears WAK_STS first, as ACPICA does
    out(device, 0, value);
    const bool off = (value & 0x20) != 0 && ((value >> 2) & 7) == kAcpiS5SleepType;
    EXPECT_EQ(stop.requested(), off) << value;
    EXPECT_EQ(in(device, 0), value & ~0x20U) << "SLP_EN reads 0";
    EXPECT_EQ(in(device, 1), 0U);
    if (off) {
      EXPECT_EQ(stop.ending()->kind, Ending::Kind::PowerOff);
      EXPECT_EQ(stop.ending()->detail, "ACPI S5");
    }
  }
}

TEST(AcpiReset, OnlyItsValueResets) {
  for (unsigned value = 0; value < 256; ++value) {
    StopLine stop;
    AcpiReset device{stop};
    out(device, 0, value);
    EXPECT_EQ(stop.requested(), value == kAcpiResetValue);
    EXPECT_EQ(in(device, 0), 0U);
  }
}

TEST(AcpiEvents, AButtonPressIsSeenOnce) {
  IrqLine irq;
  AcpiEvents device{irq};
  EXPECT_EQ(in(device, 0), 0U);
  device.press_power_button();
  device.press_power_button();
  EXPECT_EQ(drain_counter(irq.fd()), 2U);
  out(device, 0, 0xff);
  EXPECT_EQ(in(device, 0), kAcpiPowerButtonEvent);
  EXPECT_EQ(in(device, 0), 0U);
}

TEST(AcpiEvents, NoPressIsLostBetweenThreads) {
  IrqLine irq;
  AcpiEvents device{irq};
  std::jthread presser{[&] {
    for (int i = 0; i < 10000; ++i) {
      device.press_power_button();
    }
  }};
  while (drain_counter(irq.fd()) == 0) {
  }
  EXPECT_EQ(in(device, 0), kAcpiPowerButtonEvent);
  presser.join();
}

}  // namespace
}  // namespace martlet
