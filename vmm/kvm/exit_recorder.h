#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/histogram.h"
#include "vmm/kvm/exit.h"

namespace martlet {

/// One exit, as it is kept: plain, and the same size whatever it was.
struct ExitRecord {
  enum class What : std::uint8_t {
    PortRead,
    PortWrite,
    MmioRead,
    MmioWrite,
    Interrupted,
    Halted,
    Shutdown,
    SystemEvent,
    Debug,
    Fault,  ///< KVM could not go on
  };
  std::uint64_t left = 0;   ///< when the guest was left: ns of CLOCK_MONOTONIC
  std::uint64_t took = 0;   ///< ns until it could be entered again
  std::uint64_t addr = 0;   ///< port or guest-physical address
  std::uint64_t value = 0;  ///< the first 8 bytes read or written
  std::uint16_t entry = 0;  ///< of the bus; its number of entries where nobody answered
  What what = What::Fault;
  std::uint8_t size = 0;  ///< of one item, in bytes
};

/// Watches one vCPU's exits for --stats, --trace and bundles: the last of them, and how long they took, by reason, by
/// device and by address (of the first 256; a guest may try any number of them). Written by the vCPU's thread alone;
/// read while that rests or is gone. Where nobody wants it there is none, and the run loop has no branch for it.
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
  /// A table for people: a line for each reason, for each device, and for the addresses that had most.
  [[nodiscard]] std::string table() const;

  /// ns of CLOCK_MONOTONIC.
  [[nodiscard]] static std::uint64_t now() noexcept {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }

 private:
  using What = ExitRecord::What;
  static constexpr std::size_t kWhats = std::size_t{static_cast<std::uint8_t>(What::Fault)} + 1;
  static constexpr std::size_t kPlaces = 256;
  static constexpr unsigned kSlotBits = 9;
  static_assert(kPlaces < std::size_t{1} << kSlotBits, "a search must come to an empty slot");

  struct Place {
    What what = What::Fault;
    std::uint64_t addr = 0;
    Histogram took;
  };

  [[nodiscard]] Histogram& at_place(const ExitRecord& record) noexcept;
  [[nodiscard]] const Bus* bus_of(What what) const noexcept;
  [[nodiscard]] std::string_view name_at(What what, std::size_t entry) const noexcept;
  [[nodiscard]] std::string table_of_places() const;

  const Buses* buses_;
  std::uint64_t left_ = 0;
  std::uint64_t count_ = 0;
  std::vector<ExitRecord> records_;                  // a ring
  std::array<std::vector<Histogram>, kWhats> took_;  // by reason, then by entry of its bus, if it has one
  std::vector<Place> places_;                        // has room for all from the start
  std::array<std::uint16_t, std::size_t{1} << kSlotBits> slots_{};  // by hash: 1 + the place's index, or 0
  Histogram elsewhere_;
  Bus::LastHit last_port_;
  Bus::LastHit last_mmio_;
};

/// "read", "write", "kick", …
[[nodiscard]] std::string_view name_of(ExitRecord::What what) noexcept;

}  // namespace martlet
