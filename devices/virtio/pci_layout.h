#pragma once
// What a virtio function on PCI looks like from outside (virtio 1.2 §4.1.2, §4.1.4): its identity, its
// capabilities, and the pages of its one BAR.

#include <cstddef>
#include <cstdint>

#include "devices/pci/config.h"
#include "devices/virtio/wire.h"

namespace martlet::virtio::pci_layout {

inline constexpr unsigned kBar = 0;
inline constexpr std::uint32_t kBarSize = 0x8000;
inline constexpr std::uint64_t kPageSize = 0x1000;

enum class Page : std::uint8_t { Common, Isr, Device, Notify, MsixTable, MsixPending };
[[nodiscard]] constexpr std::uint32_t offset_of(Page page) noexcept {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(page) * kPageSize);
}

/// The common configuration structure, §4.1.4.3. Addresses of queue areas are two words each.
enum class Common : std::uint16_t {
  DeviceFeatureSelect = 0x00,
  DeviceFeature = 0x04,
  DriverFeatureSelect = 0x08,
  DriverFeature = 0x0c,
  ConfigVector = 0x10,
  QueueCount = 0x12,
  Status = 0x14,
  ConfigGeneration = 0x15,
  QueueSelect = 0x16,
  QueueSize = 0x18,
  QueueVector = 0x1a,
  QueueEnable = 0x1c,
  QueueNotifyOffset = 0x1e,
  Descriptors = 0x20,
  DescriptorsHigh = 0x24,
  Driver = 0x28,
  DriverHigh = 0x2c,
  Device = 0x30,
  DeviceHigh = 0x34,
  QueueNotifyData = 0x38,
  QueueReset = 0x3a,
};
inline constexpr std::uint32_t kCommonLength = 0x3c;

inline constexpr std::uint32_t kNotifyMultiplier = 4;

/// Offsets in the PCI_CFG capability, §4.1.4.9.
inline constexpr std::size_t kWindowBar = 4;
inline constexpr std::size_t kWindowOffset = 8;
inline constexpr std::size_t kWindowLength = 12;
inline constexpr std::size_t kWindowData = 16;

[[nodiscard]] PciIdentity identity(DeviceId id) noexcept;

/// All the capabilities of virtio's own; returns the offset of PCI_CFG.
[[nodiscard]] std::size_t add_capabilities(PciConfig& config, std::size_t queues);

}  // namespace martlet::virtio::pci_layout
