#pragma once
// Page tables in guest memory, built the way a kernel builds them.

#include <cstdint>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/page_walk.h"

namespace martlet {

/// Four- or five-level tables (or PAE: three) that grow page by page from `first_table`, where the root lies; the page
/// next to it is left for a user's root.
class PageTables {
 public:
  static constexpr std::uint64_t kPresent = 1;
  static constexpr std::uint64_t kWritable = 2;
  static constexpr std::uint64_t kUser = 4;
  static constexpr std::uint64_t kLarge = 0x80;
  static constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kFrame = 0x000f'ffff'ffff'f000;

  PageTables(const GuestMemory& memory, std::uint64_t first_table, unsigned levels = 4)
      : memory_{memory}, root_{first_table}, next_{first_table + 0x2000}, levels_{levels} {}

  /// Maps the page of 1 << `shift` bytes (12, 21, 30) at `virt` to `phys`.
  void map(std::uint64_t virt, std::uint64_t phys, unsigned shift = 12, std::uint64_t flags = kPresent | kWritable) {
    const std::uint64_t entry = entry_at(virt, shift);
    put(entry, phys | flags | (shift > 12 ? kLarge : 0));
  }
  /// The address of the entry that maps `virt` at the level of pages of 1 << `shift` bytes. Makes what lies above it.
  std::uint64_t entry_at(std::uint64_t virt, unsigned shift) {
    std::uint64_t table = root_;
    for (unsigned place = 12 + 9 * (levels_ - 1);; place -= 9) {
      const std::uint64_t entry = table + (virt >> place & 0x1ff) * 8;
      if (place == shift) {
        return entry;
      }
      if ((get(entry) & kPresent) == 0) {
        const bool pae_root = levels_ == 3 && place == 30;
        put(entry, next_ | kPresent | (pae_root ? 0 : kWritable | kUser));
        next_ += 0x1000;
      }
      table = get(entry) & kFrame;
    }
  }
  [[nodiscard]] std::uint64_t get(std::uint64_t entry) const { return *memory_.read<std::uint64_t>(GuestAddr{entry}); }
  void put(std::uint64_t entry, std::uint64_t value) const {
    static_cast<void>(memory_.write(GuestAddr{entry}, value));
  }

  [[nodiscard]] std::uint64_t root() const { return root_; }

 private:
  const GuestMemory& memory_;
  std::uint64_t root_;
  std::uint64_t next_;
  unsigned levels_;
};

/// The registers of a CPU in long mode on tables at `root`.
inline Paging long_mode(std::uint64_t root) { return {.cr0 = 0x8000'0001, .cr3 = root, .cr4 = 0x20, .efer = 0xd01}; }

}  // namespace martlet
