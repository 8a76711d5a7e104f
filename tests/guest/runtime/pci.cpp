#include "pci.h"

#include "acpi.h"

namespace guest {
namespace {

constexpr u32 kBarAddressMask = ~0xfU;
constexpr u64 kWindow = 0xc0000000;  // nothing but PCI is here, on any machine these guests meet
u64 window = kWindow;

u32 bar_register(u8 index) { return kPciBar0 + 4U * index; }

}  // namespace

u64 find_ecam(const HvmStartInfo& info) {
  constexpr u64 kFirstEntry = sizeof(AcpiHeader) + 8;  // PCI Firmware 3.0, table 4-2
  const auto* const mcfg = find_table(info, "MCFG");
  if (mcfg == nullptr || mcfg->length < kFirstEntry + 16) {
    return 0;
  }
  u64 base = 0;
  __builtin_memcpy(&base, reinterpret_cast<const u8*>(mcfg) + kFirstEntry, sizeof base);
  return base;
}

u8 PciFunction::find_capability(u8 kind, u8 at) const {
  if ((read<u16>(kPciStatus) & kPciHasCapabilities) == 0) {
    return 0;
  }
  constexpr int kMost = 48;  // all that fit
  u8 next = read<u8>(at == 0 ? u32{kPciCapabilities} : at + 1U) & 0xfcU;
  for (int i = 0; i < kMost && next != 0; ++i) {
    if (read<u8>(next) == kind) {
      return next;
    }
    next = read<u8>(next + 1U) & 0xfcU;
  }
  return 0;
}

bool PciFunction::bar_is_64_bit(u8 index) const { return (read<u32>(bar_register(index)) & 7U) == 4; }

u64 PciFunction::bar_size(u8 index) const {
  const u16 command_before = read<u16>(kPciCommand);
  write<u16>(kPciCommand, command_before & static_cast<u16>(~kPciMemory));
  const u32 at = bar_register(index);
  const u32 low = read<u32>(at);
  write<u32>(at, ~0U);
  u64 mask = 0xffffffff00000000U | (read<u32>(at) & kBarAddressMask);
  if (bar_is_64_bit(index)) {
    const u32 high = read<u32>(at + 4);
    write<u32>(at + 4, ~0U);
    mask = (u64{read<u32>(at + 4)} << 32U) | (mask & 0xffffffffU);
    write<u32>(at + 4, high);
  }
  write<u32>(at, low);
  write<u16>(kPciCommand, command_before);
  return ~mask + 1;
}

void PciFunction::move_bar(u8 index, u64 address) const {
  const u16 command_before = read<u16>(kPciCommand);
  write<u16>(kPciCommand, command_before & static_cast<u16>(~kPciMemory));
  write<u32>(bar_register(index), static_cast<u32>(address));
  if (bar_is_64_bit(index)) {
    write<u32>(bar_register(index) + 4, static_cast<u32>(address >> 32U));
  }
  write<u16>(kPciCommand, command_before);
}

u64 PciFunction::bar(u8 index) const {
  const u32 at = bar_register(index);
  u64 address = read<u32>(at) & kBarAddressMask;
  if (bar_is_64_bit(index)) {
    address |= u64{read<u32>(at + 4)} << 32U;
  }
  if (address == 0) {
    const u64 size = bar_size(index);
    address = (window + size - 1) & ~(size - 1);
    window = address + size;
    move_bar(index, address);
  }
  return address;
}

}  // namespace guest
