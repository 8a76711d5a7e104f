#pragma once

#include <optional>

#include "vmm/kvm/vcpu.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

// Of a vCPU that is at rest, or whose thread has not begun or is gone.

/// Nothing when KVM fails.
[[nodiscard]] std::optional<CpuState> read_cpu_state(const Vcpu& vcpu);
/// False when KVM refuses.
[[nodiscard]] bool write_cpu_state(const Vcpu& vcpu, const CpuState& state, CpuParts parts);

}  // namespace martlet
