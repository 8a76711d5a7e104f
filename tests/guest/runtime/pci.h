#pragma once
// PCI, as much as a driver needs: configuration space by ECAM or by ports, capabilities, BARs, MSI-X.
// PCI Local Bus 3.0, PCI Express Base 4.0.

#include "pvh.h"

namespace guest {

// Offsets of the configuration header, §6.1.
enum PciRegister : u16 {
  kPciVendor = 0x00,
  kPciDevice = 0x02,
  kPciCommand = 0x04,
  kPciStatus = 0x06,
  kPciRevision = 0x08,
  kPciClass = 0x0a,
  kPciHeaderType = 0x0e,
  kPciBar0 = 0x10,
  kPciSubsystemVendor = 0x2c,
  kPciSubsystem = 0x2e,
  kPciCapabilities = 0x34,
  kPciInterruptLine = 0x3c,
  kPciInterruptPin = 0x3d,
};
inline constexpr u16 kPciMemory = 1U << 1U;  // command
inline constexpr u16 kPciBusMaster = 1U << 2U;
inline constexpr u16 kPciNoIntx = 1U << 10U;
inline constexpr u16 kPciHasCapabilities = 1U << 4U;  // status

inline constexpr u8 kVendorCapability = 0x09;
inline constexpr u8 kMsixCapability = 0x11;

/// One function of bus 0.
class PciFunction {
 public:
  PciFunction() = default;
  PciFunction(u64 ecam, u8 number) : ecam_{ecam}, number_{number} {}

  template <class T>
  [[nodiscard]] T read(u32 offset) const {
    if (ecam_ != 0) {
      return mmio_read<T>(ecam_address(offset));
    }
    select(offset);
    const auto port = static_cast<u16>(kData + (offset & 3U));
    if constexpr (sizeof(T) == 1) {
      return in8(port);
    } else if constexpr (sizeof(T) == 2) {
      return in16(port);
    } else {
      return in32(port);
    }
  }
  template <class T>
  void write(u32 offset, T value) const {
    if (ecam_ != 0) {
      mmio_write<T>(ecam_address(offset), value);
      return;
    }
    select(offset);
    const auto port = static_cast<u16>(kData + (offset & 3U));
    if constexpr (sizeof(T) == 1) {
      out8(port, value);
    } else if constexpr (sizeof(T) == 2) {
      out16(port, value);
    } else {
      out32(port, value);
    }
  }

  [[nodiscard]] u8 device() const { return static_cast<u8>(number_ >> 3U); }
  [[nodiscard]] u8 function() const { return number_ & 7U; }
  void command(u16 clear, u16 set) const {
    write<u16>(kPciCommand, static_cast<u16>((read<u16>(kPciCommand) & ~u32{clear}) | set));
  }

  /// The next capability of this kind after `at` (0: the first), or 0. A list that runs in a circle ends.
  [[nodiscard]] u8 find_capability(u8 kind, u8 at = 0) const;
  /// Where a memory BAR is. One without an address gets one from the machine's window for 32-bit BARs.
  [[nodiscard]] u64 bar(u8 index) const;
  [[nodiscard]] u64 bar_size(u8 index) const;
  /// Moves it; memory decoding is off meanwhile.
  void move_bar(u8 index, u64 address) const;
  [[nodiscard]] bool bar_is_64_bit(u8 index) const;

 private:
  static constexpr u16 kAddress = 0xcf8;
  static constexpr u16 kData = 0xcfc;
  [[nodiscard]] u64 ecam_address(u32 offset) const { return ecam_ + (u64{number_} << 12U) + offset; }
  void select(u32 offset) const { out32(kAddress, 0x80000000U | (u32{number_} << 8U) | (offset & 0xfcU)); }

  u64 ecam_ = 0;   // 0: by ports
  u8 number_ = 0;  // device << 3 | function
};

/// Bus 0 of the first segment's ECAM, by ACPI's MCFG; 0 when ACPI says nothing of it.
u64 find_ecam(const HvmStartInfo& info);

/// Calls visit for each function on bus 0; stops when that returns true.
template <class Visitor>
bool for_each_pci_function(u64 ecam, Visitor visit) {
  for (u32 device = 0; device < 32; ++device) {
    for (u32 number = 0; number < 8; ++number) {
      const PciFunction function{ecam, static_cast<u8>(device * 8 + number)};
      if (function.read<u16>(kPciVendor) == 0xffff) {
        if (number == 0) {
          break;
        }
        continue;
      }
      if (visit(function)) {
        return true;
      }
      if (number == 0 && (function.read<u8>(kPciHeaderType) & 0x80U) == 0) {
        break;
      }
    }
  }
  return false;
}

}  // namespace guest
