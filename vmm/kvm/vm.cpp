#include "vmm/kvm/vm.h"

#include <algorithm>

#include "vmm/kvm/table.h"

namespace martlet {

void Vm::map(const GuestMemory& memory) {
  std::uint32_t slot = 0;
  for (const auto& region : memory.regions()) {
    kvm_userspace_memory_region slot_region{};
    slot_region.slot = slot++;
    slot_region.guest_phys_addr = raw(region.range.start);
    slot_region.memory_size = region.range.size;
    slot_region.userspace_addr = reinterpret_cast<std::uintptr_t>(region.bytes.data());
    kvm_ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &slot_region, "KVM_SET_USER_MEMORY_REGION");
  }
}

namespace {

void set_irqfd(int vm, const IrqLine& line, std::uint32_t gsi, std::uint32_t flags) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(line.fd());
  irqfd.gsi = gsi;
  irqfd.flags = flags;
  kvm_ioctl(vm, KVM_IRQFD, &irqfd, "KVM_IRQFD");
}

void set_ioeventfd(int vm, const Vm::Doorbell& doorbell, int eventfd, std::uint32_t flags) {
  kvm_ioeventfd io{};
  io.addr = doorbell.addr;
  io.len = doorbell.size;
  io.fd = eventfd;
  io.datamatch = doorbell.value.value_or(0);
  io.flags = flags | (doorbell.value ? static_cast<std::uint32_t>(KVM_IOEVENTFD_FLAG_DATAMATCH) : 0U) |
             (doorbell.space == Vm::Doorbell::Space::Port ? static_cast<std::uint32_t>(KVM_IOEVENTFD_FLAG_PIO) : 0U);
  kvm_ioctl(vm, KVM_IOEVENTFD, &io, "KVM_IOEVENTFD");
}

}  // namespace

void Vm::connect(const IrqLine& line, std::uint32_t gsi) { set_irqfd(fd_.get(), line, gsi, 0); }
void Vm::disconnect(const IrqLine& line, std::uint32_t gsi) {
  set_irqfd(fd_.get(), line, gsi, KVM_IRQFD_FLAG_DEASSIGN);
}

void Vm::connect(const LevelLine& line, std::uint32_t gsi) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<std::uint32_t>(line.fd());
  irqfd.gsi = gsi;
  irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
  irqfd.resamplefd = static_cast<std::uint32_t>(line.resampled());
  kvm_ioctl(fd_.get(), KVM_IRQFD, &irqfd, "KVM_IRQFD with resampling");
}

void Vm::add_doorbell(const Doorbell& doorbell, int eventfd) { set_ioeventfd(fd_.get(), doorbell, eventfd, 0); }
void Vm::remove_doorbell(const Doorbell& doorbell, int eventfd) {
  set_ioeventfd(fd_.get(), doorbell, eventfd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

void Vm::send(const kvm_msi& message) { kvm_ioctl(fd_.get(), KVM_SIGNAL_MSI, &message, "KVM_SIGNAL_MSI"); }

void Vm::set_routes(std::span<const kvm_irq_routing_entry> routes) {
  KvmTable<kvm_irq_routing, kvm_irq_routing_entry> table{routes.size()};
  table.header().nr = static_cast<std::uint32_t>(routes.size());
  std::ranges::copy(routes, table.entries().begin());
  kvm_ioctl(fd_.get(), KVM_SET_GSI_ROUTING, &table.header(), "KVM_SET_GSI_ROUTING");
}

void Vm::enable(std::uint32_t capability, std::uint64_t argument, const char* what) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  kvm_ioctl(fd_.get(), KVM_ENABLE_CAP, &cap, what);
}

}  // namespace martlet
