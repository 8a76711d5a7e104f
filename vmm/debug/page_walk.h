#pragma once

#include <cstdint>
#include <optional>

#include "vmm/base/guest_addr.h"
#include "vmm/base/guest_memory.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// The registers that say how a vCPU's addresses are translated (Intel SDM vol. 3, chapter 4).
struct Paging {
  std::uint64_t cr0 = 0;
  std::uint64_t cr3 = 0;
  std::uint64_t cr4 = 0;
  std::uint64_t efer = 0;

  [[nodiscard]] static Paging of(const kvm_sregs& sregs) noexcept {
    return {.cr0 = sregs.cr0, .cr3 = sregs.cr3, .cr4 = sregs.cr4, .efer = sregs.efer};
  }
  /// The same under the other page table of a kernel that isolates itself (Linux' PTI): CR3 bit 12 tells the user's
  /// from the kernel's.
  [[nodiscard]] Paging with_kernel_table() const noexcept {
    return {.cr0 = cr0, .cr3 = cr3 & ~kUserTable, .cr4 = cr4, .efer = efer};
  }
  static constexpr std::uint64_t kUserTable = 0x1000;
};

/// Where a virtual address leads to.
struct Translation {
  GuestAddr addr{};             ///< of the byte asked for; may lie outside RAM
  std::uint64_t page_size = 0;  ///< what follows up to the page's end follows in memory, too
  bool writable = false;
  bool user = false;
  bool executable = false;
};

/// Translates as the CPU would: no paging, 32-bit, PAE, 4 and 5 levels, pages of 4 KiB to 1 GiB. Nothing when the
/// address is not mapped: not canonical, an entry not present, with reserved bits, or a table outside RAM.
/// Permissions refuse nothing here, and accessed and dirty bits stay as they are.
[[nodiscard]] std::optional<Translation> walk(const GuestMemory& memory, const Paging& paging,
                                              std::uint64_t addr) noexcept;

}  // namespace martlet
