#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet::test {

/// A machine read back from an ELF core, ours or of QEMU's dump-guest-memory.
struct CoreFile {
  std::unique_ptr<GuestMemory> memory;
  std::vector<CpuState> cpus;         ///< from QEMU's notes
  std::vector<std::uint32_t> pids{};  ///< from NT_PRSTATUS
  std::string vmcoreinfo{};
};

/// Throws std::runtime_error when it is none.
[[nodiscard]] CoreFile read_core(const std::string& path);

}  // namespace martlet::test
