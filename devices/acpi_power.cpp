#include "devices/acpi_power.h"

#include <utility>

namespace martlet {
namespace {

enum class SleepRegister : std::uint64_t { Control = 0, Status = 1 };

// Sleep control register, ACPI 6.5 table 4.27.
constexpr std::uint8_t kSleepEnable = 0x20;
constexpr std::uint8_t kSleepTypeMask = 0x1c;
constexpr std::uint8_t kSleepTypeShift = 2;

}  // namespace

std::uint8_t AcpiSleep::read_register(std::uint64_t offset) noexcept {
  if (SleepRegister{offset} != SleepRegister::Control) {
    return 0;  // WAK_STS: nothing that sleeps here ever wakes
  }
  const std::lock_guard lock{mutex_};
  return state_.control;
}

void AcpiSleep::write_register(std::uint64_t offset, std::uint8_t value) noexcept {
  if (SleepRegister{offset} != SleepRegister::Control) {
    return;
  }
  {
    const std::lock_guard lock{mutex_};
    state_.control = value & static_cast<std::uint8_t>(~kSleepEnable);
  }
  if ((value & kSleepEnable) != 0 && (value & kSleepTypeMask) >> kSleepTypeShift == kAcpiS5SleepType) {
    stop_.request({.kind = Ending::Kind::PowerOff, .detail = "ACPI S5"});
  }
}

void AcpiReset::write_register(std::uint64_t offset, std::uint8_t value) noexcept {
  if (offset == 0 && value == kAcpiResetValue) {
    stop_.request({.kind = Ending::Kind::Reset, .detail = "by the ACPI reset register"});
  }
}

void AcpiEvents::press_power_button() noexcept {
  {
    const std::lock_guard lock{mutex_};
    state_.pending |= kAcpiPowerButtonEvent;
  }
  irq_.raise();
}

std::uint8_t AcpiEvents::read_register(std::uint64_t /*offset*/) noexcept {
  const std::lock_guard lock{mutex_};
  return std::exchange(state_.pending, std::uint8_t{0});
}

}  // namespace martlet
