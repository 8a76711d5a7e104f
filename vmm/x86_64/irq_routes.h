#pragma once

#include <cstdint>
#include <vector>

#include "vmm/kvm/uapi.h"

namespace martlet {

/// The wired interrupts' part of a GSI routing table, as KVM sets it up by itself: each goes to the IO-APIC
/// pin of its number, the first 16 to the PICs as well.
[[nodiscard]] std::vector<kvm_irq_routing_entry> wired_routes();

/// `gsi` sends a message-signalled interrupt. A guest chose it: what KVM would refuse is left out.
[[nodiscard]] kvm_irq_routing_entry msi_route(std::uint32_t gsi, std::uint64_t address, std::uint32_t data);

/// An NMI for the vCPU with this APIC id (Intel SDM 3A §11.11: delivery mode 4).
[[nodiscard]] kvm_msi nmi_message(std::uint32_t apic_id);

}  // namespace martlet
