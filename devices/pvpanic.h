#pragma once

#include <cstdint>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"

namespace martlet {

/// QEMU's pvpanic (docs/specs/pvpanic.rst): reads as the events it knows; a guest that panics writes one.
class PvPanic final : public ByteDevice {
 public:
  explicit PvPanic(StopLine& stop) : stop_{stop} {}

 private:
  static constexpr std::uint8_t kPanicked = 0x01;
  static constexpr std::uint8_t kCrashLoaded = 0x02;  // a crash kernel takes over: let it write its dump

  std::uint8_t read_register(std::uint64_t /*offset*/) noexcept override { return kPanicked | kCrashLoaded; }
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override {
    if (offset == 0 && (value & kPanicked) != 0) {
      stop_.request({.kind = Ending::Kind::Panic, .detail = "the guest's kernel panicked (pvpanic)"});
    }
  }

  StopLine& stop_;
};

}  // namespace martlet
