#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// The notes of a vmcore, one after the other: NT_PRSTATUS for each vCPU, QEMU's CPU state for each, VMCOREINFO unless
/// it is empty.
[[nodiscard]] std::vector<std::byte> vmcore_notes(std::span<const CpuState> cpus, std::string_view vmcoreinfo);

}  // namespace martlet
