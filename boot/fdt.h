#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/guest_memory.h"

namespace martlet {

struct FdtConfig {
  std::uint32_t cpus = 1;  ///< their APIC ids are 0 to cpus - 1
  std::span<const GuestRange> ram;
  std::string command_line;
  std::optional<GuestRange> initrd{};
  std::size_t virtio_mmio = 0;  ///< devices, at layout::virtio_mmio(0) and after
};

/// A flattened device tree of the machine (Devicetree Specification 0.4), for x86 kernels with CONFIG_OF.
[[nodiscard]] std::vector<std::byte> make_fdt(const FdtConfig& config);

/// Puts a device tree into RAM between `floor` and `ceiling`, as a SETUP_DTB record for the zero page's
/// setup_data, and returns where the record lies. Throws HostError when there is no room.
[[nodiscard]] GuestRange place_fdt(const GuestMemory& memory, std::span<const std::byte> blob, GuestAddr floor,
                                   GuestAddr ceiling);

/// The same with a device tree blob from a file, whose structure is checked in full.
[[nodiscard]] GuestRange load_fdt(const GuestMemory& memory, const std::string& path, GuestAddr floor,
                                  GuestAddr ceiling);

}  // namespace martlet
