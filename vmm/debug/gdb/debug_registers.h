#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "vmm/debug/gdb/target.h"

namespace martlet::gdb {

/// What a breakpoint stops at; the values are gdb's, as in "Z1".
enum class StopAt : std::uint8_t {
  Code = 0,          ///< code, however that is done
  CodeHardware = 1,  ///< code, by a debug register
  Write = 2,
  Read = 3,  ///< x86 cannot tell reads from writes before: both
  Access = 4,
};

struct Breakpoint {
  StopAt at = StopAt::Code;
  std::uint64_t addr = 0;
  std::uint64_t length = 0;  ///< bytes, of data

  [[nodiscard]] bool of_code() const noexcept { return at == StopAt::Code || at == StopAt::CodeHardware; }
  friend bool operator==(const Breakpoint&, const Breakpoint&) = default;
};

/// Which breakpoints have which of the four debug registers (Intel SDM vol. 3, 18.2): the same on every vCPU.
class DebugRegisters {
 public:
  /// False when the registers that are free are not enough; a breakpoint on data takes one for each aligned 8, 4, 2
  /// or 1 bytes. Again what is there already: nothing happens.
  [[nodiscard]] bool insert(const Breakpoint& breakpoint);
  void remove(const Breakpoint& breakpoint);
  void clear() { slots_ = {}; }

  [[nodiscard]] bool has(const Breakpoint& breakpoint) const;
  [[nodiscard]] bool has_code(std::uint64_t pc) const;
  /// The breakpoint that bits 0 to 3 of DR6 tell of; nothing when none of ours has such a register.
  [[nodiscard]] std::optional<Breakpoint> hit(std::uint64_t dr6) const;

  /// Puts them into `debug`, but those that would stop at the code at `except`.
  void fill(GuestDebug& debug, std::optional<std::uint64_t> except) const;

 private:
  struct Slot {
    Breakpoint owner;
    std::uint64_t addr;
    unsigned length;
  };
  std::array<std::optional<Slot>, 4> slots_;
};

}  // namespace martlet::gdb
