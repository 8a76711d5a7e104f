#include "vmm/x86_64/irq_routes.h"

#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint32_t kPicPins = 8;  // of each of the two

kvm_irq_routing_entry wired_route(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip.irqchip = chip;
  entry.u.irqchip.pin = pin;
  return entry;
}

}  // namespace

std::vector<kvm_irq_routing_entry> wired_routes() {
  std::vector<kvm_irq_routing_entry> table;
  for (std::uint32_t gsi = 0; gsi < layout::kIoApicPins; ++gsi) {
    if (gsi < 2 * kPicPins) {
      table.push_back(
          wired_route(gsi, gsi < kPicPins ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % kPicPins));
    }
    table.push_back(wired_route(gsi, KVM_IRQCHIP_IOAPIC, gsi));
  }
  return table;
}

kvm_irq_routing_entry msi_route(std::uint32_t gsi, std::uint64_t address, std::uint32_t data) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_MSI;
  entry.u.msi.address_lo = static_cast<std::uint32_t>(address);
  // Above 4 GiB there is nothing that takes interrupts, and KVM refuses a table that says so. What is higher still
  // are bits of an APIC's ID (KVM_X2APIC_API_USE_32BIT_IDS).
  entry.u.msi.address_hi = static_cast<std::uint32_t>(address >> 32U) & ~0xffU;
  entry.u.msi.data = data;
  return entry;
}

kvm_msi nmi_message(std::uint32_t apic_id) {
  constexpr std::uint32_t kDeliverNmi = 4U << 8U;
  kvm_msi message{};
  message.address_lo = static_cast<std::uint32_t>(raw(layout::kLocalApic.start)) | (apic_id & 0xffU) << 12U;
  message.address_hi = apic_id & ~0xffU;  // KVM_X2APIC_API_USE_32BIT_IDS; without it no id is that high
  message.data = kDeliverNmi;
  return message;
}

}  // namespace martlet
