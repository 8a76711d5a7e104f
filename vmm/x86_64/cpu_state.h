#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmm/kvm/uapi.h"

namespace martlet {

/// What a debugger or a dump wants to know of a vCPU that is at rest.
struct CpuState {
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_fpu fpu{};                                         ///< x87 and XMM
  bool has_avx = false;                                  ///< the guest's CPU has AVX: `ymm_high` means something
  std::array<std::array<std::byte, 16>, 16> ymm_high{};  ///< bits 128 to 255 of YMM0 to YMM15
  std::uint64_t kernel_gs_base = 0;                      ///< MSR 0xc0000102
  std::uint64_t lstar = 0;                               ///< MSR 0xc0000082, where SYSCALL enters; only ever read
  std::uint32_t mp_state = KVM_MP_STATE_RUNNABLE;        ///< KVM_MP_STATE_*

  [[nodiscard]] bool user_mode() const noexcept { return (sregs.cs.selector & 3U) == 3; }
};

/// The parts of CpuState that can be written, each by calls to KVM of its own: write no more than was changed.
struct CpuParts {
  bool regs = false;
  bool sregs = false;
  bool fpu = false;
  bool ymm_high = false;
  bool kernel_gs_base = false;
};

}  // namespace martlet
