#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/histogram.h"
#include "vmm/kvm/exit.h"

namespace martlet {

/// One exit, as it is kept: plain, and the same size whatever it was.
struct ExitRecord {
  enum class What : std::uint8_t { PortRead, PortWrite, MmioRead, MmioWrite, Interrupted, Other };
  std::uint64_t left = 0;   ///< when the guest was left: ns of CLOCK_MONOTONIC
  std::uint64_t took = 0;   ///< ns until it could be entered again
  std::uint64_t addr = 0;   ///< port or guest-physical address
  std::uint64_t value = 0;  ///< the first 8 bytes read or written
  std::uint16_t entry = 0;  ///< of the bus; its number of entries where nobody answered
  What what = What::Other;
  std::uint8_t size = 0;  ///< of one item, in bytes
};

/// Watches one vCPU's exits for --stats, --trace and bundles: the last of them, and how long each kind took. Written
/// by the vCPU's thread alone; read while that rests or is gone. Where nobody wants it there is none, and the run
/// loop has no branch for it.
class ExitRecorder {
 public:
  /// Keeps the last `capacity` exits.
  ExitRecorder(const Buses& buses, std::size_t capacity);

  // --- The run loop's.
  void left_guest() noexcept { left_ = now(); }
  void served(const Exit& exit) noexcept;

  // --- Everybody else's.
  /// Those kept, the oldest first.
  [[nodiscard]] std::vector<ExitRecord> last() const;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  /// Who answered, for people: "uart", or "other ports".
  [[nodiscard]] std::string_view name_of(const ExitRecord& record) const noexcept;
  /// A table for people: a line for each kind of exit and device.
  [[nodiscard]] std::string table() const;

  /// ns of CLOCK_MONOTONIC.
  [[nodiscard]] static std::uint64_t now() noexcept {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }

 private:
  [[nodiscard]] Histogram& histogram(const ExitRecord& record) noexcept;

  const Buses* buses_;
  std::uint64_t left_ = 0;
  std::uint64_t count_ = 0;
  std::vector<ExitRecord> records_;  // a ring
  std::vector<Histogram> took_;      // port reads, port writes, MMIO reads, MMIO writes, then the rest
  Bus::LastHit last_port_;
  Bus::LastHit last_mmio_;
};

/// "read", "write", "kick" or "other".
[[nodiscard]] std::string_view name_of(ExitRecord::What what) noexcept;

}  // namespace martlet
