// Every virtio device of the machine, before any driver: identity, capabilities, BARs, features, status.
// Words: transport=, config=; expect=N devices; strict=1 where the device refuses what it may also put up with.
#include "args.h"
#include "check.h"
#include "virtio/driver.h"

namespace {

using namespace guest;
using namespace guest::virtio;

bool strict = false;
constexpr u64 kElsewhere = 0xc8000000;  // in the window of 32-bit BARs, and far from its start

// --- PCI, §4.1.

void structure_in_bar(const PciFunction& pci, u8 at, u32 least, u64 alignment) {
  const u8 bar = pci.read<u8>(at + u32{kCapBar});
  const u64 offset = pci.read<u32>(at + u32{kCapOffset});
  const u64 length = pci.read<u32>(at + u32{kCapLength});
  check(bar <= 5, "a structure is in a BAR that exists");
  check(length >= least, "a structure is long enough");
  check(offset % alignment == 0, "a structure is aligned");
  check(bar <= 5 && offset + length <= pci.bar_size(bar), "a structure is within its BAR");
}

void capabilities(const PciTransport& device) {
  const auto& pci = device.function();
  structure_in_bar(pci, device.find(kCommonConfig), 56, 4);
  structure_in_bar(pci, device.find(kNotifyConfig), 2, 2);
  structure_in_bar(pci, device.find(kInterruptStatus), 1, 1);
  if (const u8 at = device.find(kDeviceConfig); at != 0) {
    structure_in_bar(pci, at, 1, 4);
  }
  const u8 notify = device.find(kNotifyConfig);
  check(pci.read<u8>(notify + 2U) >= 20, "the notification capability is long enough");
  const u32 multiplier = pci.read<u32>(notify + u32{kCapMultiplier});
  check((multiplier & (multiplier - 1)) == 0 && multiplier != 1, "the multiplier is 0 or an even power of two");
}

/// The window into BARs that configuration space itself has, §4.1.4.9.
void config_access(const PciTransport& device) {
  constexpr u32 kStatusOffset = 0x14;  // of the common configuration
  const auto& pci = device.function();
  const u8 window = device.find(kPciConfigAccess);
  check(window != 0, "there is a window into the BARs");
  if (window == 0) {
    return;
  }
  const u8 common = device.find(kCommonConfig);
  device.set_status(0);
  device.set_status(kAcknowledge);
  pci.write<u8>(window + u32{kCapBar}, pci.read<u8>(common + u32{kCapBar}));
  pci.write<u32>(window + u32{kCapOffset}, pci.read<u32>(common + u32{kCapOffset}) + kStatusOffset);
  pci.write<u32>(window + u32{kCapLength}, 1);
  check_equal(pci.read<u8>(window + u32{kCapMultiplier}), kAcknowledge, "the status, read through the window");
  pci.write<u8>(window + u32{kCapMultiplier}, kAcknowledge | kDriver);
  check_equal(device.status(), kAcknowledge | kDriver, "the status, written through the window");
  device.set_status(0);
}

void msix(const PciTransport& device) {
  const auto& pci = device.function();
  const u8 at = pci.find_capability(kMsixCapability);
  check(at != 0, "there is MSI-X");
  if (at == 0) {
    return;
  }
  const u64 entries = (pci.read<u16>(at + 2U) & 0x7ffU) + 1U;
  const u32 table = pci.read<u32>(at + 4U);
  const u32 pending = pci.read<u32>(at + 8U);
  check((table & 7U) <= 5 && (table & ~7U) + entries * 16 <= pci.bar_size(table & 7U), "MSI-X's table is in its BAR");
  check((pending & 7U) <= 5 && (pending & ~7U) + (entries + 63) / 64 * 8 <= pci.bar_size(pending & 7U),
        "MSI-X's pending bits are in their BAR");
  check((pci.read<u16>(at + 2U) & 0x8000U) == 0, "MSI-X is off at first");
  const u64 first = pci.bar(table & 7U) + (table & ~7U);
  check_equal(mmio_read<u32>(first + 12) & 1U, 1, "an MSI-X entry is masked at first");
}

void move(PciTransport& device) {
  const PciFunction pci = device.function();
  const u8 bar = pci.read<u8>(device.find(kCommonConfig) + u32{kCapBar});
  const u64 home = pci.bar(bar);
  const u32 features = device.offered(0);
  pci.move_bar(bar, kElsewhere);
  PciTransport moved;
  if (moved.attach(pci)) {
    check_equal(moved.offered(0), features, "features, after the BAR moved");
  }
  pci.move_bar(bar, home);
  check_equal(device.offered(0), features, "features, after the BAR moved back");
}

void header(const PciFunction& pci, u64 ecam) {
  check(pci.read<u8>(kPciRevision) >= 1, "a modern device's revision");
  check_equal(pci.read<u8>(kPciHeaderType) & 0x7fU, 0, "the header's type");
  check((pci.read<u16>(kPciStatus) & kPciHasCapabilities) != 0, "there are capabilities");
  check(pci.read<u8>(kPciInterruptPin) <= 4, "an interrupt pin");
  check(pci.read<u16>(kPciVendor) == kPciVendorId, "virtio's vendor");
  if (ecam == 0) {
    return;
  }
  const PciFunction by_ports{0, static_cast<u8>(pci.device() << 3U | pci.function())};
  for (u32 offset = 0; offset < 0x100; offset += 4) {
    check_equal(by_ports.read<u32>(offset), pci.read<u32>(offset), "configuration space by ports and by ECAM");
  }
  const auto command = pci.read<u16>(kPciCommand);
  by_ports.write<u16>(kPciCommand, command ^ kPciBusMaster);
  check_equal(pci.read<u16>(kPciCommand), command ^ kPciBusMaster, "a command by ports, read by ECAM");
  pci.write<u16>(kPciCommand, command);
}

void nobody(u64 ecam) {
  const PciFunction absent{ecam, 31U << 3U | 7U};
  check_equal(absent.read<u32>(kPciVendor), 0xffffffff, "a function that is not there");
  absent.write<u32>(kPciBar0, 0);
  check_equal(absent.read<u16>(kPciVendor), 0xffff, "a function that is not there, written to");
  if (ecam != 0) {
    check_equal(absent.read<u32>(0xffc), 0xffffffff, "the end of its extended space");
  }
}

// --- Any transport, §2 and §3.1.

void feature_words(const Transport& device) {
  const u64 offered = device.features();
  check((offered & kVersion1) != 0, "VERSION_1 is offered");
  if (strict) {
    check_equal(device.offered(2), 0, "features 64 to 95");
    check_equal(device.offered(~0U), 0, "features far beyond");
  }
  check_equal(device.features(), offered, "features, asked again");
}

bool agrees(const Transport& device, u64 features) {
  device.set_status(0);
  check_equal(device.status(), 0, "the status after a reset");
  device.set_status(kAcknowledge);
  check_equal(device.status(), kAcknowledge, "the status after ACKNOWLEDGE");
  device.set_status(kAcknowledge | kDriver);
  device.accept(0, static_cast<u32>(features));
  device.accept(1, static_cast<u32>(features >> 32U));
  device.set_status(kAcknowledge | kDriver | kFeaturesOk);
  return (device.status() & kFeaturesOk) != 0;
}

void negotiation(const Transport& device) {
  check(agrees(device, kVersion1), "a driver may want no more than VERSION_1");
  device.accept(0, 0x3f);  // too late: §3.1.1 has no way back from FEATURES_OK
  device.set_status(kAcknowledge | kDriver | kFeaturesOk | kFailed);
  check((device.status() & kFailed) != 0, "a driver may give up");
  if (strict) {
    check(!agrees(device, kVersion1 | kReservedFeature), "a feature that is not offered is refused");
    check(!agrees(device, 0), "a driver without VERSION_1 is refused");
    check(agrees(device, kVersion1), "the next driver is not");
  }
  device.set_status(0);
  check_equal(device.status(), 0, "the status after the last reset");
}

u32 queues_of(const Transport& device) {
  u16 count = 0;
  for (; count < 1024 && device.queue_limit(count) != 0; ++count) {
    const u16 limit = device.queue_limit(count);
    check((limit & (limit - 1)) == 0, "a queue's largest size is a power of two");
    check(!device.queue_enabled(count), "a queue is not enabled at first");
  }
  check(count > 0, "there is a queue");
  check_equal(device.queue_limit(0xffff), 0, "the size of the last queue there can be");
  return count;
}

void configuration(const Transport& device) {
  const u32 generation = device.config_generation();
  u64 sum = 0;
  for (u32 i = 0; i < 24; ++i) {  // of any width, whatever be there
    sum += mmio_read<u8>(device.config() + i);
    sum += mmio_read<u16>(device.config() + (i & ~1U));
    sum += mmio_read<u32>(device.config() + (i & ~3U));
  }
  check(sum < u64{24} << 33U, "configuration space can be read");
  check_equal(device.config_generation(), generation, "a generation in which nothing changed");
}

void any_device(const Transport& device) {
  feature_words(device);
  negotiation(device);
  const u32 queues = queues_of(device);
  configuration(device);
  print("device ", device.device_id(), " features ", Hex{device.features()}, " queues ", queues, "\n");
}

u32 on_mmio() {
  u32 count = 0;
  MmioSlot slot;
  for (u32 i = 0; find_mmio_slot(i, slot); ++i) {
    MmioTransport device;
    if (device.attach(slot)) {
      ++count;
      any_device(device);
    }
  }
  return count;
}

u32 on_pci(const HvmStartInfo& info) {
  const u64 ecam = word_is("config", "ports") ? 0 : find_ecam(info);
  check(ecam != 0 || word_is("config", "ports"), "ACPI tells of ECAM");
  nobody(ecam);
  u32 count = 0;
  for_each_pci_function(ecam, [&count, ecam](const PciFunction& pci) {
    if (pci.read<u16>(kPciVendor) != kPciVendorId) {
      return false;
    }
    ++count;
    header(pci, ecam);
    PciTransport device;
    if (device.attach(pci)) {
      capabilities(device);
      msix(device);
      config_access(device);
      move(device);
      any_device(device);
    }
    return false;
  });
  return count;
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  strict = number_word("strict", 0) != 0;
  const u32 count = word_is("transport", "mmio") ? on_mmio() : on_pci(info);
  check_equal(count, number_word("expect", count), "virtio devices");
  print("virtio devices ", count, "\n");
  return verdict();
}
