#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"

namespace martlet {

/// By which the init of --exec says, byte by byte up to a newline, why it cannot run the command: there need not be any
/// driver for that. Ends the VM. Reads 0.
class ExecPort final : public ByteDevice {
 public:
  explicit ExecPort(StopLine& stop) : stop_{stop} { said_.reserve(kLongest); }

 private:
  static constexpr std::size_t kLongest = 512;

  std::uint8_t read_register(std::uint64_t /*offset*/) noexcept override { return 0; }
  void write_register(std::uint64_t /*offset*/, std::uint8_t value) noexcept override {
    const std::lock_guard lock{mutex_};
    if (value == '\n') {
      stop_.request({.kind = Ending::Kind::ExecFailed, .code = Ending::kCannotExec, .detail = said_});
    } else if (said_.size() < kLongest) {
      said_ += value >= ' ' && value < 0x7f ? static_cast<char>(value) : '?';
    }
  }

  StopLine& stop_;
  std::mutex mutex_;
  std::string said_;  // guarded by mutex_
};

}  // namespace martlet
