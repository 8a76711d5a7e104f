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
