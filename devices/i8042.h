#pragma once

#include <cstdint>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"

namespace martlet {

/// The command port (0x64) of a keyboard controller that is there for its reset line only: no keyboard,
/// no mouse, no answer to any command. Put nothing at the data port: what floats there is as good.
class I8042 final : public ByteDevice {
 public:
  explicit I8042(StopLine& stop) : stop_{stop} {}

 private:
  // "Output buffer full" for ever makes Linux' i8042_flush() give up after 17 looks (under 1 ms) with "No
  // controller found"; an empty one would cost it the half-second time-out of a self-test. "Input
  // buffer full" (bit 1) must be 0: before each reset kb_wait() polls for that up to 65,536 times.
  // (An absent port reads 0xff, which has both.)
  static constexpr std::uint8_t kOutputBufferFull = 0x01;

  // Commands 0xf0-0xff pulse the output lines whose bit is 0; bit 0 is the CPU's reset.
  static constexpr std::uint8_t kPulse = 0xf0;
  static constexpr std::uint8_t kPulseNotReset = 0x01;

  std::uint8_t read_register(std::uint64_t /*offset*/) noexcept override { return kOutputBufferFull; }
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override {
    if (offset == 0 && (value & (kPulse | kPulseNotReset)) == kPulse) {
      stop_.request({.kind = Ending::Kind::Reset, .detail = "by the i8042's reset line"});
    }
  }

  StopLine& stop_;
};

}  // namespace martlet
