#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/gdb/patches.h"
#include "vmm/debug/page_walk.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet::gdb {

/// Guest memory as a debugger addresses it: through a CPU's page tables (or physically), our int3s not to be seen.
///
/// A kernel that isolates itself (Linux' PTI) has two page tables for each process, and while its CPU runs in user
/// mode most of the kernel is in the other one. What one does not map is looked for in the other.
class TargetMemory {
 public:
  /// Both outlive this.
  TargetMemory(const GuestMemory& memory, Patches& patches) noexcept : memory_{memory}, patches_{patches} {}

  [[nodiscard]] std::optional<Translation> translate(const CpuState& cpu, std::uint64_t addr) const;

  /// Reads up to the first byte that is not there; how many there were.
  [[nodiscard]] std::size_t read(const CpuState& cpu, std::uint64_t addr, std::span<std::byte> into) const;
  /// The same; what was written before stays written. The page tables' permissions do not matter.
  [[nodiscard]] std::size_t write(const CpuState& cpu, std::uint64_t addr, std::span<const std::byte> bytes);

  /// Whether addresses are physical (Qqemu.PhyMemMode).
  [[nodiscard]] bool physical() const noexcept { return physical_; }
  void set_physical(bool physical) noexcept { physical_ = physical; }

 private:
  /// The RAM at `addr`, up to the page's end or `length`.
  struct Piece {
    GuestAddr addr;
    std::size_t length;
  };
  [[nodiscard]] std::optional<Piece> piece_at(const CpuState& cpu, std::uint64_t addr, std::size_t length) const;
  [[nodiscard]] bool isolates(const Paging& paging) const;

  const GuestMemory& memory_;
  Patches& patches_;
  bool physical_ = false;
};

}  // namespace martlet::gdb
