#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/backtrace.h"
#include "vmm/debug/dmesg.h"
#include "vmm/debug/vmcoreinfo.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// What a machine at rest has to say about itself, by its memory and registers alone.
struct PostMortem {
  std::optional<VmCoreInfo> info{};
  std::optional<std::vector<LogRecord>> log{};
  KernelCode code{};
  std::string cpus{};                  ///< registers and backtrace of each vCPU, for people
  std::vector<std::string> remarks{};  ///< what could not be had, and why: a line each
};

/// `vmlinux`: the kernel's ELF file or System.map, "" when there is none. Without it, or when it is another kernel's by
/// its build ID, or cannot be read, what the guest's kernel remembers of its own symbols and ORC tables is taken
/// (Linux 6.0 and later). `vmcoreinfo`: where the guest says that its VMCOREINFO is, if it does.
[[nodiscard]] PostMortem examine(const GuestMemory& memory, std::span<const CpuState> cpus,
                                 const std::string& vmlinux = {}, std::optional<GuestRange> vmcoreinfo = {});

/// The symbols alone, found in the same way. Throws HostError when the file cannot be read.
[[nodiscard]] Symbols find_symbols(const GuestMemory& memory, std::span<const CpuState> cpus,
                                   const std::string& vmlinux = {}, std::optional<GuestRange> vmcoreinfo = {});

struct NamedText {
  std::string text{};
  std::string first{};  ///< the first of the names; "" if there is none
};
/// A line for people, with the names of functions in the place of the addresses ("0xffffffff81a0b2c3") that have one.
[[nodiscard]] NamedText name_addresses(std::string_view text, const Symbols& symbols);

/// A vCPU's registers, a few to a line.
[[nodiscard]] std::string format_registers(const CpuState& cpu);

}  // namespace martlet
