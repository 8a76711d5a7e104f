#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>

#include "vmm/base/bus.h"

namespace martlet {

/// The PC's real-time clock (Motorola MC146818A data sheet) with 114 bytes of CMOS RAM: the index at
/// offset 0, the data at offset 1. It tells the host's time in UTC; setting it keeps the difference and
/// leaves the host's clock alone.
///
/// Interrupts (periodic, alarm, update-ended) are not built: their enable bits and the alarm registers
/// keep what is written, and register C reads 0.
class Rtc final : public ByteDevice {
 public:
  using Milliseconds = std::chrono::milliseconds;
  /// UTC since 1970. No system call, please: it is asked on vCPU threads.
  using Clock = std::function<Milliseconds()>;

  struct State {
    std::uint8_t index = 0;
    std::uint8_t register_a = 0x26;          ///< 32.768 kHz time base, 1024 Hz periodic rate: as every BIOS leaves it
    std::uint8_t register_b = 0x02;          ///< 24 hours, BCD: the only mode Linux' rtc-cmos accepts
    std::array<std::uint8_t, 128> memory{};  ///< alarms and CMOS RAM; the time too while the guest sets it
    Milliseconds offset{0};                  ///< the guest's time less the host's
  };

  explicit Rtc(Clock clock = host_clock);

  [[nodiscard]] static Milliseconds host_clock();

 private:
  std::uint8_t read_register(std::uint64_t offset) noexcept override;
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override;

  [[nodiscard]] std::uint8_t read_indexed() noexcept;
  void write_indexed(std::uint8_t value) noexcept;
  void write_register_b(std::uint8_t value) noexcept;
  /// The time into the registers, as register B says they are to be read.
  void show_time(Milliseconds host) noexcept;
  /// And back; a date that does not exist changes nothing.
  void take_time(Milliseconds host) noexcept;
  [[nodiscard]] std::uint8_t encode(unsigned number) const noexcept;
  [[nodiscard]] unsigned decode(std::uint8_t byte) const noexcept;
  [[nodiscard]] std::uint8_t encode_hour(unsigned hour) const noexcept;
  [[nodiscard]] unsigned decode_hour(std::uint8_t byte) const noexcept;

  Clock clock_;
  std::mutex mutex_;
  State state_;
  Milliseconds shown_{0};  // the host's time that a guest now reads
};

}  // namespace martlet
