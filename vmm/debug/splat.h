#pragma once

#include <optional>
#include <string_view>

#include "vmm/debug/finding.h"

namespace martlet {

/// What the first line of a kernel's report says. Nothing when it is no report's first line.
struct SplatHead {
  FindingKind kind;
  std::string_view text;
};

/// Whether the line has the kernel's time stamp: some words are taken for the kernel's only then, as programs
/// use them, too.
enum class Stamped { No, Yes };

/// Recognises the words of Linux 5.10 to 6.12 and thereabouts. `line` is without its time stamp.
[[nodiscard]] std::optional<SplatHead> splat_head(std::string_view line, Stamped stamped) noexcept;

/// "invalid opcode: 0000 [#1] …", as die() says it (arch/x86/kernel/dumpstack.c): of an oops, the first or second line.
[[nodiscard]] bool is_die_line(std::string_view line) noexcept;

/// "function+0x12/0x20 [module]" or "function+0x12/0x20", the first one in `text`; empty when there is none.
[[nodiscard]] std::string_view symbol_in(std::string_view text) noexcept;

/// What follows "RIP: 0010:" in a splat, if this is the line, and it is the kernel's RIP.
[[nodiscard]] std::string_view kernel_rip(std::string_view line) noexcept;

/// The number after "CPU: ", "CPU#" or "cpu "; -1 when there is none.
[[nodiscard]] int cpu_in(std::string_view text) noexcept;

}  // namespace martlet
