#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace martlet {

/// Registers of a type 0 header, PCI Local Bus 3.0 §6.1.
namespace pci {
inline constexpr std::uint8_t kVendorId = 0x00;
inline constexpr std::uint8_t kDeviceId = 0x02;
inline constexpr std::uint8_t kCommand = 0x04;
inline constexpr std::uint8_t kStatus = 0x06;
inline constexpr std::uint8_t kRevision = 0x08;  // with the class code's three bytes above it
inline constexpr std::uint8_t kCacheLineSize = 0x0c;
inline constexpr std::uint8_t kBars = 0x10;
inline constexpr std::uint8_t kSubsystemVendorId = 0x2c;
inline constexpr std::uint8_t kSubsystemId = 0x2e;
inline constexpr std::uint8_t kCapabilities = 0x34;
inline constexpr std::uint8_t kInterruptLine = 0x3c;
inline constexpr std::uint8_t kInterruptPin = 0x3d;
inline constexpr std::uint8_t kDeviceSpecific = 0x40;

enum Command : std::uint16_t { kMemorySpace = 1U << 1U, kBusMaster = 1U << 2U, kInterruptDisable = 1U << 10U };
enum Status : std::uint16_t { kInterruptStatus = 1U << 3U, kCapabilityList = 1U << 4U };

inline constexpr std::uint8_t kPinA = 1;
}  // namespace pci

/// What a function is, in its header.
struct PciIdentity {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint8_t revision = 0;
  std::uint32_t class_code = 0;  ///< base class, sub-class and interface: 24 bits
  std::uint16_t subsystem_vendor = 0;
  std::uint16_t subsystem = 0;
};

/// One function's configuration space: 256 bytes, of which the guest may change those bits it is meant
/// to, and what lies beyond reads as 0. A BAR is its writable bits: writing all ones shows its size.
class PciConfig {
 public:
  static constexpr std::size_t kSize = 256;
  static constexpr unsigned kBarCount = 6;

  explicit PciConfig(const PciIdentity& identity) noexcept;

  /// 32-bit memory, not prefetchable; `size` is a power of two from 16. A mistake in the recipe throws
  /// std::logic_error, as does a capability for which there is no room.
  void add_bar(unsigned bar, std::uint32_t size);
  /// `body` is what follows the two bytes of id and next pointer; `writable` has a 1 for each bit that the
  /// guest may change and may be shorter. Returns the capability's offset.
  std::uint8_t add_capability(std::uint8_t id, std::span<const std::byte> body,
                              std::span<const std::byte> writable = {});

  /// The guest's accesses.
  void read(std::uint32_t offset, std::span<std::byte> into) const noexcept;
  void write(std::uint32_t offset, std::span<const std::byte> bytes) noexcept;

  /// The device's own: a register at an offset from add_capability() or `pci`, whatever its masks say.
  template <class T>
  [[nodiscard]] T get(std::size_t offset) const noexcept {
    static_assert(std::is_integral_v<T> && std::endian::native == std::endian::little);
    T value{};
    if (offset <= kSize - sizeof(T)) {
      std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    }
    return value;
  }
  template <class T>
  void set(std::size_t offset, T value) noexcept {
    static_assert(std::is_integral_v<T>);
    if (offset <= kSize - sizeof(T)) {
      std::memcpy(bytes_.data() + offset, &value, sizeof(T));
    }
  }

  /// 0 when there is no such BAR.
  [[nodiscard]] std::uint32_t bar_size(unsigned bar) const noexcept { return bar < kBarCount ? bar_sizes_[bar] : 0; }
  [[nodiscard]] std::uint32_t bar(unsigned bar) const noexcept { return get<std::uint32_t>(bar_offset(bar)); }
  void set_bar(unsigned bar, std::uint32_t address) noexcept { set(bar_offset(bar), address); }

 private:
  [[nodiscard]] static std::size_t bar_offset(unsigned bar) noexcept { return pci::kBars + bar * std::size_t{4}; }

  std::array<std::byte, kSize> bytes_{};  // all that the guest sees
  std::array<std::byte, kSize> writable_{};
  std::array<std::uint32_t, kBarCount> bar_sizes_{};
  std::size_t free_ = pci::kDeviceSpecific;
  std::size_t last_link_ = pci::kCapabilities;  // where the next capability's offset goes
};

}  // namespace martlet
