#include "devices/virtio/pci_layout.h"

#include <algorithm>
#include <array>
#include <span>

namespace martlet::virtio::pci_layout {
namespace {

constexpr std::uint16_t kVendor = 0x1af4;
constexpr std::uint16_t kFirstDevice = 0x1040;  // plus the virtio device id
constexpr std::uint8_t kRevision = 1;           // 1 or higher: not transitional
constexpr std::uint16_t kSubsystem = 0x1100;    // as QEMU's; 0x40 or higher: not transitional

constexpr std::uint32_t class_code(DeviceId id) {  // as QEMU's
  switch (id) {
    case DeviceId::Net:
      return 0x020000;  // network, Ethernet
    case DeviceId::Block:
      return 0x010000;  // mass storage, SCSI
    case DeviceId::Console:
      return 0x078000;  // communication, other
    case DeviceId::Entropy:
      break;
  }
  return 0x00ff00;  // PCI has no class for it
}

enum class Kind : std::uint8_t { Common = 1, Notify = 2, Isr = 3, Device = 4, ConfigWindow = 5 };

struct Capability {  // §4.1.4
  std::uint8_t id = 0;
  std::uint8_t next = 0;
  std::uint8_t length = 0;
  std::uint8_t kind = 0;
  std::uint8_t bar = kBar;
  std::array<std::uint8_t, 3> padding{};
  std::uint32_t offset = 0;
  std::uint32_t size = 0;
  std::uint32_t tail = 0;  // NOTIFY: the multiplier; PCI_CFG: its data; others end before it
};
static_assert(sizeof(Capability) == 20 && offsetof(Capability, bar) == kWindowBar &&
              offsetof(Capability, offset) == kWindowOffset && offsetof(Capability, size) == kWindowLength &&
              offsetof(Capability, tail) == kWindowData);

constexpr std::uint8_t kVendorSpecific = 0x09;
constexpr std::size_t kHead = offsetof(Capability, length);  // what PciConfig fills in

std::span<const std::byte> body_of(const Capability& capability, std::size_t length) {
  return std::as_bytes(std::span{&capability, 1}).subspan(kHead, length - kHead);
}

std::uint8_t add(PciConfig& config, Capability capability, const Capability& writable = {.bar = 0}) {
  const auto kind = static_cast<Kind>(capability.kind);
  const bool has_tail = kind == Kind::Notify || kind == Kind::ConfigWindow;
  const auto length = has_tail ? sizeof capability : offsetof(Capability, tail);
  capability.length = static_cast<std::uint8_t>(length);
  return config.add_capability(kVendorSpecific, body_of(capability, length), body_of(writable, length));
}

Capability page(Kind kind, Page page, std::uint32_t size) {
  return {.kind = static_cast<std::uint8_t>(kind), .offset = offset_of(page), .size = size};
}

}  // namespace

PciIdentity identity(DeviceId id) noexcept {
  return {.vendor = kVendor,
          .device = static_cast<std::uint16_t>(kFirstDevice + static_cast<std::uint16_t>(id)),
          .revision = kRevision,
          .class_code = class_code(id),
          .subsystem_vendor = kVendor,
          .subsystem = kSubsystem};
}

std::size_t add_capabilities(PciConfig& config, std::size_t queues) {
  constexpr std::uint32_t kAll = 0xffff'ffff;
  add(config, page(Kind::Common, Page::Common, kCommonLength));
  add(config, page(Kind::Isr, Page::Isr, 1));
  add(config, page(Kind::Device, Page::Device, kPageSize));
  auto notify = page(Kind::Notify, Page::Notify,
                     static_cast<std::uint32_t>(std::max<std::size_t>(queues, 1)) * kNotifyMultiplier);
  notify.tail = kNotifyMultiplier;
  add(config, notify);
  return add(config, {.kind = static_cast<std::uint8_t>(Kind::ConfigWindow)},
             {.bar = 0xff, .offset = kAll, .size = kAll, .tail = kAll});
}

}  // namespace martlet::virtio::pci_layout
