#pragma once

#include <cstdint>
#include <mutex>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"
#include "vmm/base/irq_line.h"

namespace martlet {

/// The value the DSDT's \_S5 package must hold for the sleep control register.
inline constexpr std::uint8_t kAcpiS5SleepType = 5;
/// The FADT's RESET_VALUE.
inline constexpr std::uint8_t kAcpiResetValue = 1;
/// The event register's bit for the power button, which the DSDT's _EVT method tests.
inline constexpr std::uint8_t kAcpiPowerButtonEvent = 0x01;

/// Sleep control (offset 0) and sleep status (offset 1) of hardware-reduced ACPI (ACPI 6.5, §4.8.3.7).
/// Soft-off is the only sleep on offer; other types are ignored.
class AcpiSleep final : public ByteDevice {
 public:
  struct State {
    std::uint8_t control = 0;  ///< as last written, without SLP_EN, which always reads 0
  };

  explicit AcpiSleep(StopLine& stop) : stop_{stop} {}

 private:
  std::uint8_t read_register(std::uint64_t offset) noexcept override;
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override;

  StopLine& stop_;
  std::mutex mutex_;
  State state_;
};

/// The reset register (ACPI 6.5, §4.8.3.6).
class AcpiReset final : public ByteDevice {
 public:
  explicit AcpiReset(StopLine& stop) : stop_{stop} {}

 private:
  std::uint8_t read_register(std::uint64_t /*offset*/) noexcept override { return 0; }
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override;

  StopLine& stop_;
};

/// What has happened since the guest last looked: one byte, which reading clears. Its interrupt belongs to
/// a generic event device (ACPI 6.5, §5.6.9) and is an edge.
class AcpiEvents final : public ByteDevice {
 public:
  struct State {
    std::uint8_t pending = 0;
  };

  explicit AcpiEvents(const IrqLine& irq) : irq_{irq} {}

  /// From any thread.
  void press_power_button() noexcept;

 private:
  std::uint8_t read_register(std::uint64_t offset) noexcept override;
  void write_register(std::uint64_t /*offset*/, std::uint8_t /*value*/) noexcept override {}

  const IrqLine& irq_;
  std::mutex mutex_;
  State state_;
};

}  // namespace martlet
