// Does whatever it can to the machine short of ending it, then leaves in good order with exit code 42.
// size=1, 2 or 4: that wide, reads and writes every port, with every byte value where a device is known to
// be. mmio=N: N accesses of random width, direction and address all over the hole below 4 GiB.
#include "args.h"
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

struct PortRange {
  u32 first;
  u32 last;
};
// What may end the VM, if only by a byte of a wider access: vmm/x86_64/layout.h, and 0xcf9 on other PCs.
constexpr PortRange kEnds[] = {{0x64, 0x64},   {0xf4, 0xf7},   {0x500, 0x500}, {0x505, 0x505},
                               {0x600, 0x600}, {0x602, 0x602}, {0xcf9, 0xcf9}};
constexpr PortRange kDevices[] = {{0x20, 0x21}, {0x40, 0x43},   {0x60, 0x61},   {0x70, 0x71},
                                  {0xa0, 0xa1}, {0x3f8, 0x3ff}, {0x4d0, 0x4d1}, {0x5f8, 0x608}};

template <unsigned Count>
bool touches(const PortRange (&ranges)[Count], u32 port, u32 size) {
  for (const auto& range : ranges) {
    if (port <= range.last && port + size > range.first) {
      return true;
    }
  }
  return false;
}

u64 seed = 0x853c49e6748fea9b;
u64 random() {
  seed ^= seed << 13U;
  seed ^= seed >> 7U;
  seed ^= seed << 17U;
  return seed;
}

void access_port(u16 port, u32 size, u32 value) {
  switch (size) {
    case 1:
      out8(port, static_cast<u8>(value));
      static_cast<void>(in8(port));
      break;
    case 2:
      out16(port, static_cast<u16>(value));
      static_cast<void>(in16(port));
      break;
    default:
      out32(port, value);
      static_cast<void>(in32(port));
      break;
  }
}

void attack_ports(u32 size) {
  constexpr u32 kBeyondAllDevices = 0xd00;
  for (u32 port = 0; port < kBeyondAllDevices; ++port) {
    if (touches(kEnds, port, size)) {
      continue;
    }
    if (touches(kDevices, port, size)) {
      for (u32 value = 0; value < 256; ++value) {
        access_port(static_cast<u16>(port), size, value * 0x01010101U);
      }
    }
    access_port(static_cast<u16>(port), size, static_cast<u32>(random()));
  }
  for (u32 port = kBeyondAllDevices; port <= 0xffff; ++port) {
    access_port(static_cast<u16>(port), size, port * 0x9e3779b9U);
  }
}

void attack_mmio(u64 accesses) {
  constexpr u64 kHole = 0xc0000000;
  constexpr u64 kHoleSize = 0x40000000;
  constexpr u64 kLocalApic = 0xfee00000;  // which could put this CPU to sleep for ever
  constexpr u64 kPage = 0x1000;
  constexpr u64 kHot[] = {0xfec00000, 0xfeb00000, 0xe0000000, 0xfffbc000, 0xfffffff0};
  for (u64 i = 0; i < accesses; ++i) {
    const u64 dice = random();
    u64 address = kHole + random() % (kHoleSize - 8);
    if (dice % 4 == 0) {
      address = kHot[dice / 4 % 5] + random() % kPage % (0x100000000 - kHot[dice / 4 % 5] - 8);
    }
    if (address + 8 > kLocalApic && address < kLocalApic + kPage) {
      continue;
    }
    const u64 value = random();
    switch (dice / 32 % 8) {
      case 0:
        mmio_write<u8>(address, static_cast<u8>(value));
        break;
      case 1:
        mmio_write<u16>(address, static_cast<u16>(value));
        break;
      case 2:
        mmio_write<u32>(address, static_cast<u32>(value));
        break;
      case 3:
        mmio_write<u64>(address, value);
        break;
      case 4:
        static_cast<void>(mmio_read<u8>(address));
        break;
      case 5:
        static_cast<void>(mmio_read<u16>(address));
        break;
      case 6:
        static_cast<void>(mmio_read<u32>(address));
        break;
      default:
        static_cast<void>(mmio_read<u64>(address));
        break;
    }
  }
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  if (const u64 size = number_word("size", 0); size != 0) {
    attack_ports(static_cast<u32>(size));
  }
  attack_mmio(number_word("mmio", 0));
  uart_setup();
  print("\nsurvived\n");
  return 42;
}
