#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"

namespace martlet {

/// Martlet's own: the byte a guest writes here is the VM's exit code, exactly. Of a wider write the low
/// byte counts. Reads 0.
class ExitPort final : public BusDevice {
 public:
  explicit ExitPort(StopLine& stop) : stop_{stop} {}

  void read(std::uint64_t /*offset*/, std::span<std::byte> data) noexcept override {
    std::ranges::fill(data, std::byte{0});
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
    if (offset == 0 && !data.empty()) {
      stop_.request(
          {.kind = Ending::Kind::GuestExit, .code = std::to_integer<int>(data.front()), .detail = "by the exit port"});
    }
  }

 private:
  StopLine& stop_;
};

/// QEMU's isa-debug-exit, which many test kernels know: a write of `v` exits with (v << 1) | 1, never 0.
/// As with QEMU, `v` is what one write carries, wherever in the range, and a process keeps only the
/// exit code's low byte. Reads 0.
class IsaDebugExit final : public BusDevice {
 public:
  explicit IsaDebugExit(StopLine& stop) : stop_{stop} {}

  void read(std::uint64_t /*offset*/, std::span<std::byte> data) noexcept override {
    std::ranges::fill(data, std::byte{0});
  }
  void write(std::uint64_t /*offset*/, std::span<const std::byte> data) noexcept override {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < std::min(data.size(), sizeof value); ++i) {
      value |= std::to_integer<std::uint32_t>(data[i]) << (8U * i);
    }
    stop_.request({.kind = Ending::Kind::GuestExit,
                   .code = static_cast<int>((value << 1U | 1U) & 0xffU),
                   .detail = "by isa-debug-exit, value " + std::to_string(value)});
  }

 private:
  StopLine& stop_;
};

}  // namespace martlet
