#pragma once

#include "vmm/kvm/system.h"

namespace martlet {

/// Whether int3 in a guest ends in a debug exit when KVM is told so: tried out in a VM of a few instructions. Real CPUs
/// do it; KVM's interpreter and QEMU's emulated AMD-V take int3 for one more software interrupt.
[[nodiscard]] bool int3_exits(const KvmSystem& system);

}  // namespace martlet
