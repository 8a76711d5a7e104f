#pragma once

#include <span>
#include <string>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/vmcoreinfo.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// What is to be written of a machine at rest, and where to.
struct Vmcore {
  enum class Compression { None, Zstd };

  const GuestMemory& memory;
  std::span<const CpuState> cpus;    ///< by vCPU number
  const VmCoreInfo* info = nullptr;  ///< null before the guest has it
  std::string path{};
  Compression compression = Compression::None;
};

/// Writes an ELF core file that `crash`, `drgn` and `makedumpfile` open: RAM by guest-physical address, the vCPUs'
/// registers as NT_PRSTATUS and in QEMU's notes, and VMCOREINFO. Pages that hold nothing become holes in the file, and
/// those that were never touched are not read either. Only its owner may read the file. It appears under its name
/// when it is whole; an older one is replaced. Throws HostError, and leaves nothing behind then.
void write_vmcore(const Vmcore& core);

}  // namespace martlet
