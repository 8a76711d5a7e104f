#pragma once

#include <cstdint>
#include <span>

#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace martlet {

/// In-kernel PIC, IO-APIC, local APICs and PIT. Before the first vCPU.
/// `cpus` above 255 needs KVM_CAP_X2APIC_API; HostError without.
void create_interrupt_controllers(const KvmSystem& system, Vm& vm, std::uint32_t cpus);

/// CPUID, MSRs and the local APIC's wired interrupts: what firmware would have set before a kernel runs.
void prepare_vcpu(Vcpu& vcpu, std::span<const kvm_cpuid_entry2> cpuid);

}  // namespace martlet
