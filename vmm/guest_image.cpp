#include "vmm/guest_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "boot/acpi.h"
#include "boot/boot_params.h"
#include "boot/command_line.h"
#include "boot/fdt.h"
#include "boot/initrd.h"
#include "boot/memory_map.h"
#include "boot/mptable.h"
#include "boot/placement.h"
#include "boot/pvh.h"
#include "boot/reset_vector.h"
#include "vmm/base/error.h"
#include "vmm/exec.h"
#include "vmm/units.h"
#include "vmm/x86_64/layout.h"

namespace martlet {

LoadedKernel load_guest(const GuestMemory& memory, const Config& config, StartClock& clock) {
  auto kernel = load_kernel(memory, config.kernel);
  clock.mark("load kernel");

  // From the top of low RAM down: ACPI tables, initrd, device tree.
  std::vector<GuestRange> ram;
  for (const auto& region : memory.regions()) {
    ram.push_back(region.range);
  }
  const auto virtio = count_virtio_devices(config);
  const bool pci = virtio != 0 && config.transport == Transport::Pci;
  const auto ecam = pci ? std::optional{layout::kPciEcam} : std::nullopt;
  const auto virtio_mmio = pci ? 0 : virtio;
  const AcpiTables acpi{{.cpus = config.cpus, .ecam = ecam, .virtio_mmio = virtio_mmio}};
  const GuestAddr floor{kernel.footprint.end()};
  const auto acpi_at = highest_place(memory, acpi.size(), floor, layout::kMmioHole.start);
  if (!acpi_at) {
    throw HostError{fmt::format("--memory: no room is left for the ACPI tables after {}; use -m {} or more",
                                config.kernel, format_size(align_up(raw(floor) + acpi.size(), layout::kMiB)))};
  }
  acpi.write(memory, *acpi_at);
  write_mp_table(memory, {.cpus = config.cpus, .pci = pci});
  write_reset_vector(memory);
  const auto memory_map = make_memory_map({.ram = ram, .acpi = GuestRange{*acpi_at, acpi.size()}, .ecam = ecam});
  const auto line = kernel_command_line(config);
  const auto command_line = write_command_line(memory, line, kernel.max_command_line);
  clock.mark("tables");

  GuestAddr top = std::min(*acpi_at, kernel.initrd_limit);
  InitrdRequest request{.files = config.initrds, .root = config.root, .custom_init = has_parameter(line, "rdinit=")};
  if (config.exec) {
    request.own = exec_files(*config.exec);
  }
  const auto initrd = load_initrd(memory, request, floor, top);
  clock.mark("load initrd");

  BootInfo info{.memory_map = memory_map, .command_line = command_line, .initrd = initrd, .rsdp = layout::kRsdp.start};
  if (config.dtb) {
    top = initrd ? initrd->start : top;
    const FdtConfig tree{
        .cpus = config.cpus, .ram = ram, .command_line = line, .initrd = initrd, .virtio_mmio = virtio_mmio};
    const auto record = *config.dtb == "auto" ? place_fdt(memory, make_fdt(tree), floor, top)
                                              : load_fdt(memory, *config.dtb, floor, top);
    info.setup_data = record.start;
  }
  if (kernel.mode == EntryMode::Linux64) {
    write_boot_params(memory, kernel, info);
  } else {
    write_pvh_start_info(memory, info);
  }
  return kernel;
}

}  // namespace martlet
