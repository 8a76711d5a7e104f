#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/elf_file.h"
#include "vmm/debug/symbols.h"
#include "vmm/debug/vmcoreinfo.h"

namespace martlet {

/// Where a kernel's functions keep their stack frames, for each instruction: Linux' ORC tables
/// (Documentation/arch/x86/orc-unwinder.rst), of x86-64 kernels that are built without frame pointers.
class OrcTable {
 public:
  enum class Kind {
    Unknown,      ///< no code, or code of which nothing is known
    EndOfStack,   ///< nobody called
    Call,         ///< called: the return address is just below the frame
    Regs,         ///< entered by an exception or interrupt: the frame is a struct pt_regs
    PartialRegs,  ///< the frame is what the CPU pushed: RIP, CS, RFLAGS, RSP, SS
  };
  /// The register that a frame is found by, or RBP of the caller (numbers as in the tables).
  enum class Base : std::uint8_t {
    Undefined = 0,
    PreviousSp = 1,
    Dx = 2,
    Di = 3,
    Bp = 4,
    Sp = 5,
    R10 = 6,
    R13 = 7,
    BpIndirect = 8,
    SpIndirect = 9,
  };
  struct Entry {
    Kind kind = Kind::Unknown;
    Base sp_base = Base::Undefined;
    Base bp_base = Base::Undefined;
    std::int16_t sp_offset = 0;
    std::int16_t bp_offset = 0;
  };

  OrcTable() = default;
  /// From a vmlinux' .orc_unwind_ip and .orc_unwind; empty when it has none.
  explicit OrcTable(const ElfFile& vmlinux);
  /// From the running kernel's own tables, which `symbols` (its own, as they are now) name. Empty when it has none.
  OrcTable(const GuestMemory& memory, const VmCoreInfo& info, const Symbols& symbols);
  /// From the tables' bytes; `ip_address` is where the first of them lies in memory.
  OrcTable(std::uint64_t ip_address, std::span<const std::byte> ips, std::span<const std::byte> entries);

  /// The running kernel is at its linked addresses plus `offset` (KASLR).
  void set_offset(std::uint64_t offset) noexcept { offset_ = offset; }

  [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }
  /// What is known of the instruction at `ip`; nothing outside the kernel's image.
  [[nodiscard]] std::optional<Entry> find(std::uint64_t ip) const;

 private:
  struct Row {
    std::uint64_t ip = 0;
    std::int16_t sp_offset = 0;
    std::int16_t bp_offset = 0;
    std::uint16_t bits = 0;
  };
  enum class Format {
    Old,  ///< before Linux 6.4: a type in two bits, Call is 0
    New,  ///< a type in three bits, Call is 2
  };

  std::vector<Row> rows_;  // ascending by ip
  Format format_ = Format::New;
  std::uint64_t offset_ = 0;
};

}  // namespace martlet
