#include "devices/pci/config.h"

#include <algorithm>
#include <stdexcept>

namespace martlet {

PciConfig::PciConfig(const PciIdentity& identity) noexcept {
  set(pci::kVendorId, identity.vendor);
  set(pci::kDeviceId, identity.device);
  set(pci::kRevision, identity.class_code << 8U | identity.revision);
  set(pci::kSubsystemVendorId, identity.subsystem_vendor);
  set(pci::kSubsystemId, identity.subsystem);

  const std::uint16_t command = pci::kMemorySpace | pci::kBusMaster | pci::kInterruptDisable;
  std::memcpy(writable_.data() + pci::kCommand, &command, sizeof command);
  writable_[pci::kCacheLineSize] = std::byte{0xff};
  writable_[pci::kInterruptLine] = std::byte{0xff};
}

void PciConfig::add_bar(unsigned bar, std::uint32_t size) {
  constexpr std::uint32_t kSmallest = 16;  // the four lowest bits say what kind of BAR it is
  if (bar >= kBarCount || bar_sizes_[bar] != 0 || size < kSmallest || !std::has_single_bit(size)) {
    throw std::logic_error{"PCI: this BAR cannot be"};
  }
  bar_sizes_[bar] = size;
  const std::uint32_t writable = ~(size - 1);
  std::memcpy(writable_.data() + bar_offset(bar), &writable, sizeof writable);
}

std::uint8_t PciConfig::add_capability(std::uint8_t id, std::span<const std::byte> body,
                                       std::span<const std::byte> writable) {
  constexpr std::size_t kHead = 2;  // id and next
  const auto at = free_;
  if (body.size() + kHead > kSize - at || writable.size() > body.size()) {
    throw std::logic_error{"PCI: no room for another capability"};
  }
  set(at, id);
  std::ranges::copy(body, bytes_.data() + at + kHead);
  std::ranges::copy(writable, writable_.data() + at + kHead);
  set(last_link_, static_cast<std::uint8_t>(at));
  last_link_ = at + 1;
  free_ = (at + kHead + body.size() + 3) / 4 * 4;  // §6.7: capabilities are 32-bit aligned
  set(pci::kStatus, static_cast<std::uint16_t>(get<std::uint16_t>(pci::kStatus) | pci::kCapabilityList));
  return static_cast<std::uint8_t>(at);
}

void PciConfig::read(std::uint32_t offset, std::span<std::byte> into) const noexcept {
  for (auto& byte : into) {
    byte = offset < kSize ? bytes_[offset] : std::byte{0};
    ++offset;
  }
}

void PciConfig::write(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  for (const auto byte : bytes) {
    if (offset >= kSize) {
      return;
    }
    bytes_[offset] = (bytes_[offset] & ~writable_[offset]) | (byte & writable_[offset]);
    ++offset;
  }
}

}  // namespace martlet
