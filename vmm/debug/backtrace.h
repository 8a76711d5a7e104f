#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/orc.h"
#include "vmm/debug/symbols.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

struct Frame {
  enum class Trust {
    Sure,   ///< from a register, or where the tables or frame pointers say that a return address is
    Guess,  ///< merely lies on the stack and looks like a return address
  };
  std::uint64_t address = 0;
  Trust trust = Trust::Sure;
  bool after_exception = false;  ///< the instruction itself was interrupted: no return address
  bool user = false;             ///< the user's code, where the kernel was entered from
};

/// What is known of the kernel that runs; each may be empty.
struct KernelCode {
  Symbols symbols;
  OrcTable orc;
};

/// The calls that led a vCPU to where it is, innermost first: by ORC tables, else by frame pointers, and where neither
/// goes on, whatever looks like a return address on the rest of the stack. The stack may hold anything: at most some
/// hundred frames. One frame when the vCPU runs a user's program.
[[nodiscard]] std::vector<Frame> backtrace(const GuestMemory& memory, const CpuState& cpu, const KernelCode& code);

/// A line for each frame, as Linux' own: " do_idle+0x1f/0x2a0", " ? do_idle+0x1f/0x2a0" for guesses.
[[nodiscard]] std::string format_backtrace(const std::vector<Frame>& frames, const Symbols& symbols);

}  // namespace martlet
