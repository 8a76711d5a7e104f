#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/kvm/system.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// KVM_GET_SUPPORTED_CPUID: all that this host's KVM can give a guest; on AMD mended by mend_amd().
[[nodiscard]] std::vector<kvm_cpuid_entry2> supported_cpuid(const KvmSystem& system);

/// The CPUID instruction on this host: EAX, EBX, ECX, EDX of a leaf.
using HostCpuid = std::array<std::uint32_t, 4> (*)(std::uint32_t leaf, std::uint32_t index);

/// On an AMD or Hygon CPU: adds the cache leaves that KVM leaves empty (0x80000005, 0x8000001D), without
/// which Linux sees no caches, and takes away ARCH_CAPABILITIES, which KVM emulates and no such CPU has.
void mend_amd(std::vector<kvm_cpuid_entry2>& entries, HostCpuid host);

/// What one vCPU is told.
struct CpuidRequest {
  std::uint32_t apic_id = 0;  ///< x2APIC id, 0 … cpus-1
  std::uint32_t cpus = 1;     ///< one socket, a core for each, one thread a core
  bool tsc_deadline = false;  ///< KVM_CAP_TSC_DEADLINE_TIMER
};

/// The supported set with what differs per vCPU and what makes the topology right: leaves 1, 4, 0xB,
/// 0x1F, 0x80000008, 0x8000001D and 0x8000001E (Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E).
[[nodiscard]] std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                                       const CpuidRequest& request);

}  // namespace martlet
