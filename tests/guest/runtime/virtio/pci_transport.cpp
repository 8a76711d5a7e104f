#include "virtio/pci_transport.h"

#include "apic.h"
#include "check.h"

namespace guest::virtio {
namespace {

enum Common : u64 {  // §4.1.4.3
  kOfferedSelect = 0x00,
  kOffered = 0x04,
  kAcceptedSelect = 0x08,
  kAccepted = 0x0c,
  kConfigVector = 0x10,
  kQueueCount = 0x12,
  kStatus = 0x14,
  kGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOffset = 0x1e,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueReset = 0x3a,
};

constexpr u16 kMsixEnable = 1U << 15U;  // PCI 3.0 §6.8.2.3
constexpr u16 kMsixMaskAll = 1U << 14U;
constexpr u16 kMsixSizeMask = 0x7ff;

void write_halves(u64 address, u64 value) {
  mmio_write<u32>(address, static_cast<u32>(value));
  mmio_write<u32>(address + 4, static_cast<u32>(value >> 32U));
}

}  // namespace

u8 PciTransport::find(PciCapability type) const {
  u8 at = 0;
  do {
    at = function_.find_capability(kVendorCapability, at);
  } while (at != 0 && function_.read<u8>(at + u32{kCapType}) != type);
  return at;
}

u64 PciTransport::structure(PciCapability type) const {
  const u8 at = find(type);
  if (at == 0) {
    return 0;
  }
  return function_.bar(function_.read<u8>(at + u32{kCapBar})) + function_.read<u32>(at + u32{kCapOffset});
}

bool PciTransport::attach(const PciFunction& function) {
  function_ = function;
  common_ = structure(kCommonConfig);
  notify_ = structure(kNotifyConfig);
  interrupt_ = structure(kInterruptStatus);
  config_ = structure(kDeviceConfig);
  if (common_ == 0 || notify_ == 0 || interrupt_ == 0) {
    print("FAILED: PCI device ", u32{function.device()}, ": a virtio structure is missing: common ", Hex{common_},
          " notify ", Hex{notify_}, " interrupt ", Hex{interrupt_}, "\n");
    return false;
  }
  multiplier_ = function_.read<u32>(find(kNotifyConfig) + u32{kCapMultiplier});
  function_.command(0, kPciMemory | kPciBusMaster | kPciNoIntx);
  return true;
}

u32 PciTransport::device_id() const { return function_.read<u16>(kPciDevice) - u32{kPciModernId}; }
u8 PciTransport::status() const { return mmio_read<u8>(common_ + kStatus); }
void PciTransport::set_status(u8 status) const { mmio_write<u8>(common_ + kStatus, status); }

u32 PciTransport::offered(u32 select) const {
  mmio_write<u32>(common_ + kOfferedSelect, select);
  return mmio_read<u32>(common_ + kOffered);
}
u32 PciTransport::accepted(u32 select) const {
  mmio_write<u32>(common_ + kAcceptedSelect, select);
  return mmio_read<u32>(common_ + kAccepted);
}
void PciTransport::accept(u32 select, u32 bits) const {
  mmio_write<u32>(common_ + kAcceptedSelect, select);
  mmio_write<u32>(common_ + kAccepted, bits);
}

u16 PciTransport::queue_limit(u16 index) const {
  if (index >= mmio_read<u16>(common_ + kQueueCount)) {
    return 0;
  }
  mmio_write<u16>(common_ + kQueueSelect, index);
  return mmio_read<u16>(common_ + kQueueSize);
}
bool PciTransport::queue_enabled(u16 index) const {
  mmio_write<u16>(common_ + kQueueSelect, index);
  return mmio_read<u16>(common_ + kQueueEnable) != 0;
}
void PciTransport::enable_queue(const QueueAddresses& queue) {
  mmio_write<u16>(common_ + kQueueSelect, queue.index);
  mmio_write<u16>(common_ + kQueueSize, queue.size);
  check_equal(mmio_read<u16>(common_ + kQueueSize), queue.size, "a queue's size, read back");
  mmio_write<u16>(common_ + kQueueVector, queue.vector);
  check_equal(mmio_read<u16>(common_ + kQueueVector), queue.vector, "a queue's MSI-X vector, read back");
  write_halves(common_ + kQueueDescriptors, queue.descriptors);
  write_halves(common_ + kQueueDriver, queue.driver);
  write_halves(common_ + kQueueDevice, queue.device);
  mmio_write<u16>(common_ + kQueueEnable, 1);
  doorbells_[queue.index] = notify_ + u64{mmio_read<u16>(common_ + kQueueNotifyOffset)} * multiplier_;
}
void PciTransport::reset_queue(u16 index) const {
  mmio_write<u16>(common_ + kQueueSelect, index);
  mmio_write<u16>(common_ + kQueueReset, 1);
  while (mmio_read<u16>(common_ + kQueueReset) != 0) {  // §4.1.4.3.2
    pause();
  }
}
void PciTransport::notify(u16 index) const { mmio_write<u16>(doorbells_[index], index); }

u32 PciTransport::take_interrupt() const { return mmio_read<u8>(interrupt_); }
u32 PciTransport::config_generation() const { return mmio_read<u8>(common_ + kGeneration); }

u16 PciTransport::use_msix(u8 first_vector) {
  const u8 at = function_.find_capability(kMsixCapability);
  if (at == 0) {
    return 0;
  }
  const u32 all = (function_.read<u16>(at + 2U) & kMsixSizeMask) + 1U;
  const auto entries = static_cast<u16>(all <= kMostQueues ? all : kMostQueues + 1U);
  const u32 where = function_.read<u32>(at + 4U);
  const u64 table = function_.bar(where & 7U) + (where & ~7U);
  function_.write<u16>(at + 2U, kMsixEnable | kMsixMaskAll);
  for (u32 i = 0; i < entries; ++i) {
    const u64 entry = table + u64{i} * 16;
    mmio_write<u32>(entry, static_cast<u32>(kLocalApicAddress) | LocalApic::id() << 12U);
    mmio_write<u32>(entry + 4, 0);
    mmio_write<u32>(entry + 8, first_vector + i);
    mmio_write<u32>(entry + 12, 0);
    check_equal(mmio_read<u32>(entry + 8), first_vector + i, "an MSI-X entry's data, read back");
  }
  function_.write<u16>(at + 2U, kMsixEnable);
  mmio_write<u16>(common_ + kConfigVector, 0);
  check_equal(mmio_read<u16>(common_ + kConfigVector), 0, "the configuration's MSI-X vector, read back");
  return entries;
}

u32 PciTransport::use_wire() {
  function_.command(kPciNoIntx, 0);
  return function_.read<u8>(kPciInterruptLine);
}

}  // namespace guest::virtio
