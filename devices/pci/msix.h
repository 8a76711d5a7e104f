#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/pci/config.h"
#include "devices/pci/msi.h"
#include "vmm/base/irq_line.h"

namespace martlet {

/// A function's message-signalled interrupts (PCI Local Bus 3.0 §6.8.2): capability, table, pending bits,
/// and a wire for each vector. A vector that may interrupt is joined to its message; while it may not, its
/// wire keeps what is raised, and that is the pending bit.
///
/// The function's lock guards it, except what says "any thread".
class Msix {
 public:
  static constexpr std::uint16_t kMaxVectors = 256;  // a table of one page

  struct Place {
    std::uint8_t bar = 0;
    std::uint32_t table = 0;    ///< offset in the BAR, of a page of its own
    std::uint32_t pending = 0;  ///< likewise
    std::uint16_t vectors = 1;  ///< to kMaxVectors
  };
  /// One line of the table, as the guest sees it.
  struct Entry {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    std::uint32_t control = kMasked;
  };
  static constexpr std::uint32_t kMasked = 1;  // in Entry::control; the other bits read as 0

  /// Adds the capability to `config`; both outlive this.
  Msix(PciConfig& config, MsiRouter& router, const Place& place);
  Msix(const Msix&) = delete;
  Msix& operator=(const Msix&) = delete;
  ~Msix();

  /// The vector's wire, null if there is none such. Any thread.
  [[nodiscard]] const IrqLine* line(std::uint16_t vector) const noexcept {
    return vector < lines_.size() ? &lines_[vector] : nullptr;
  }
  /// Has the guest switched from INTx to MSI-X? Any thread.
  [[nodiscard]] bool enabled() const noexcept { return enabled_.load(); }

  /// After each write to the configuration space.
  void settle() noexcept;

  /// The guest's accesses, from each page's beginning. 4 or 8 bytes, aligned (§6.8.2); anything else reads
  /// as 0 and changes nothing.
  void read_table(std::uint64_t offset, std::span<std::byte> into) const noexcept;
  void write_table(std::uint64_t offset, std::span<const std::byte> bytes) noexcept;
  void read_pending(std::uint64_t offset, std::span<std::byte> into) const noexcept;

 private:
  void settle(std::size_t vector) noexcept;
  [[nodiscard]] std::uint64_t pending_word(std::uint64_t word) const noexcept;

  PciConfig& config_;
  MsiRouter& router_;
  std::uint8_t capability_ = 0;
  std::vector<Entry> table_;
  std::vector<IrqLine> lines_;
  std::vector<std::optional<MsiMessage>> joined_;  // what each line is joined to
  bool active_ = false;                            // the function as a whole may send messages
  std::atomic<bool> enabled_ = false;
};
static_assert(sizeof(Msix::Entry) == 16);  // §6.8.2

}  // namespace martlet
