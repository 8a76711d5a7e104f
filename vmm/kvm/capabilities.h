#pragma once

#include <array>
#include <string_view>

#include "vmm/kvm/uapi.h"

namespace martlet {

/// A KVM capability that Martlet uses (KVM API documentation, section 4.4).
struct Capability {
  int number;
  std::string_view name;
  std::string_view purpose;
  std::string_view since;  ///< first Linux release with it
  bool required;           ///< else Martlet does without
};

[[noreturn]] void refuse_without(const Capability& capability);

inline constexpr std::array kCapabilities = {
    Capability{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "guest memory", "2.6.23", true},
    Capability{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "in-kernel interrupt controllers", "2.6.22", true},
    Capability{KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "interrupts by eventfd", "2.6.32", true},
    Capability{KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE", "level-triggered interrupts by eventfd", "3.8", true},
    Capability{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "queue notifications by eventfd", "2.6.32", true},
    Capability{KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH", "queue notifications of any width", "4.4",
               true},
    Capability{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", "message-signalled interrupts", "2.6.30", true},
    Capability{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "stopping a vCPU without a race", "4.11", true},
#ifdef __x86_64__
    Capability{KVM_CAP_PIT2, "KVM_CAP_PIT2", "in-kernel timer", "2.6.31", true},
    Capability{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR", "real mode on Intel CPUs", "2.6.24", true},
    Capability{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID", "CPUID", "2.6.26", true},
    Capability{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE", "secondary CPUs", "2.6.26", true},
    Capability{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR", "placing KVM's own pages", "2.6.32",
               false},
    Capability{KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER", "the TSC deadline timer", "3.0", false},
    Capability{KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API", "more than 255 CPUs", "4.8", false},
    Capability{KVM_CAP_COALESCED_PIO, "KVM_CAP_COALESCED_PIO", "fewer exits for serial output", "5.0", false},
#endif
    Capability{KVM_CAP_BINARY_STATS_FD, "KVM_CAP_BINARY_STATS_FD", "KVM's own counters in --stats", "5.14", false},
};

/// Throws HostError for the first required capability that `extension` (as KVM_CHECK_EXTENSION) has not got.
template <class Query>
void require_capabilities(Query extension) {
  for (const auto& needed : kCapabilities) {
    if (needed.required && extension(needed.number) <= 0) {
      refuse_without(needed);
    }
  }
}

/// " - what to do about it" for a /dev/kvm that cannot be opened; empty when there is no advice.
[[nodiscard]] std::string_view fix_for_kvm_open(int error) noexcept;

}  // namespace martlet
