#pragma once
// The machine a guest sees, as addresses: every guest-physical address, port and interrupt in one
// place, overlaps refused by the compiler.

#include <algorithm>
#include <array>
#include <cstdint>

#include "vmm/base/guest_addr.h"

namespace martlet::layout {

inline constexpr std::uint64_t kKiB = 1ULL << 10U;
inline constexpr std::uint64_t kMiB = 1ULL << 20U;
inline constexpr std::uint64_t kGiB = 1ULL << 30U;

// --- Low memory, below 1 MiB: what a kernel is handed at entry. All of it is RAM.
inline constexpr GuestRange kGdt{GuestAddr{0x500}, 0x100};
inline constexpr GuestRange kPvhStartInfo{GuestAddr{0x6000}, 0x1000};  // hvm_start_info, modules, memory map
inline constexpr GuestRange kZeroPage{GuestAddr{0x7000}, 0x1000};      // struct boot_params
inline constexpr GuestRange kPageTables{GuestAddr{0x9000}, 0x6000};    // PML4, PDPT, four page directories
inline constexpr GuestRange kBootStack{GuestAddr{0xf000}, 0x1000};
inline constexpr GuestRange kCommandLine{GuestAddr{0x20000}, 0x10000};

// --- Firmware's share of the first MiB: reserved in the e820 map.
inline constexpr GuestRange kEbda{GuestAddr{0x9fc00}, 0x400};        // MP floating pointer structure
inline constexpr GuestRange kVgaHole{GuestAddr{0xa0000}, 0x40000};   // absent video and option ROMs
inline constexpr GuestRange kRsdp{GuestAddr{0xe0000}, 0x1000};       // ACPI root pointer, where BIOSes put it
inline constexpr GuestRange kMpTable{GuestAddr{0xf0000}, 0xfff0};    // MP configuration table
inline constexpr GuestRange kResetVector{GuestAddr{0xffff0}, 0x10};  // where a jump "to the BIOS" lands

inline constexpr GuestAddr kHighMemory{1 * kMiB};

// --- The hole below 4 GiB: no RAM from here up to 4 GiB.
inline constexpr GuestRange kMmioHole{GuestAddr{3 * kGiB}, 1 * kGiB};
inline constexpr GuestRange kPciMmio32{GuestAddr{0xc0000000}, 0x20000000};
inline constexpr GuestRange kPciEcam{GuestAddr{0xe0000000}, 0x100000};  // bus 0, the only one
inline constexpr GuestRange kVirtioMmio{GuestAddr{0xfeb00000}, 0x100000};
inline constexpr std::uint64_t kVirtioMmioSlot = 0x1000;  // bytes each device has of it
inline constexpr GuestRange kIoApic{GuestAddr{0xfec00000}, 0x1000};
inline constexpr GuestRange kLocalApic{GuestAddr{0xfee00000}, 0x1000};
inline constexpr GuestRange kKvmIdentityMap{GuestAddr{0xfffbc000}, 0x1000};  // KVM's own, on old Intel CPUs
inline constexpr GuestRange kKvmTss{GuestAddr{0xfffbd000}, 0x3000};          // likewise
inline constexpr GuestAddr kAbove4G{4 * kGiB};

// --- Ports.
struct PortRange {
  std::uint16_t start;
  std::uint16_t size;
};
inline constexpr PortRange kI8042Command{0x64, 1};
inline constexpr PortRange kRtc{0x70, 2};
inline constexpr PortRange kIsaDebugExit{0xf4, 4};
inline constexpr PortRange kCom1{0x3f8, 8};
inline constexpr PortRange kPciConfigAddress{0xcf8, 4};
inline constexpr PortRange kPciConfigData{0xcfc, 4};
inline constexpr PortRange kExitPort{0x500, 4};   // the low byte written here is the VM's exit code
inline constexpr PortRange kExecPort{0x504, 1};   // why the init of --exec gave up (guest/trouble.cpp)
inline constexpr PortRange kPvpanic{0x505, 1};    // QEMU's customary port for pvpanic
inline constexpr PortRange kFwCfg{0x510, 12};     // QEMU's: selector, data, DMA address
inline constexpr PortRange kAcpiSleep{0x600, 2};  // sleep control, sleep status
inline constexpr PortRange kAcpiReset{0x602, 1};
inline constexpr PortRange kAcpiEvents{0x604, 1};  // which event raised the GED's interrupt

// --- Global system interrupts (IO-APIC pins).
inline constexpr std::uint8_t kCom1Irq = 4;
inline constexpr std::uint8_t kRtcIrq = 8;
inline constexpr std::uint8_t kGedIrq = 9;
inline constexpr std::uint32_t kIoApicPins = 24;
inline constexpr std::uint32_t kPciSlots = 32;  // devices of a bus, the host bridge among them
/// Device N's INTA# goes to the N mod 4th of them.
inline constexpr std::array<std::uint8_t, 4> kPciIrqs{16, 17, 18, 19};
/// Of virtio-mmio devices, in their order; a machine with them has no PCI. Those below 16 are known without ACPI, too.
inline constexpr std::array<std::uint8_t, 16> kVirtioMmioIrqs{5,  6,  7,  10, 11, 12, 14, 15,
                                                              16, 17, 18, 19, 20, 21, 22, 23};

/// Where virtio-mmio device number `slot` has its registers.
[[nodiscard]] constexpr GuestRange virtio_mmio(std::size_t slot) {
  return {kVirtioMmio.start + slot * kVirtioMmioSlot, kVirtioMmioSlot};
}

namespace detail {
template <std::size_t N>
constexpr bool disjoint(const std::array<GuestRange, N>& ranges) {
  for (std::size_t i = 0; i < N; ++i) {
    for (std::size_t j = i + 1; j < N; ++j) {
      if (ranges[i].overlaps(ranges[j])) {
        return false;
      }
    }
  }
  return true;
}
constexpr GuestRange as_range(PortRange ports) { return {GuestAddr{ports.start}, ports.size}; }
}  // namespace detail

static_assert(detail::disjoint(std::array{kGdt, kPvhStartInfo, kZeroPage, kPageTables, kBootStack, kCommandLine, kEbda,
                                          kVgaHole, kRsdp, kMpTable, kResetVector, kMmioHole}));
static_assert(detail::disjoint(std::array{kPciMmio32, kPciEcam, kVirtioMmio, kIoApic, kLocalApic, kKvmIdentityMap,
                                          kKvmTss}));
static_assert(kMmioHole.contains(kPciMmio32) && kMmioHole.contains(kPciEcam) && kMmioHole.contains(kVirtioMmio) &&
              kMmioHole.contains(kIoApic) && kMmioHole.contains(kLocalApic) && kMmioHole.contains(kKvmIdentityMap) &&
              kMmioHole.contains(kKvmTss));
static_assert(detail::disjoint(std::array{
    detail::as_range(kI8042Command), detail::as_range(kRtc), detail::as_range(kIsaDebugExit), detail::as_range(kCom1),
    detail::as_range(kExitPort), detail::as_range(kExecPort), detail::as_range(kPvpanic), detail::as_range(kFwCfg),
    detail::as_range(kAcpiSleep), detail::as_range(kAcpiReset), detail::as_range(kAcpiEvents),
    detail::as_range(kPciConfigAddress), detail::as_range(kPciConfigData)}));
static_assert(kVirtioMmioIrqs.size() * kVirtioMmioSlot <= kVirtioMmio.size);
static_assert(std::ranges::find(kVirtioMmioIrqs, kCom1Irq) == kVirtioMmioIrqs.end() &&
              std::ranges::find(kVirtioMmioIrqs, kGedIrq) == kVirtioMmioIrqs.end() &&
              std::ranges::find(kVirtioMmioIrqs, kRtcIrq) == kVirtioMmioIrqs.end());

}  // namespace martlet::layout
