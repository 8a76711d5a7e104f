#include "vmm/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "vmm/exec.h"
#include "vmm/x86_64/layout.h"

namespace martlet {

bool has_parameter(std::string_view line, std::string_view name) {
  for (auto at = line.find(name); at != std::string_view::npos; at = line.find(name, at + 1)) {
    if (at == 0 || line[at - 1] == ' ') {
      return true;
    }
  }
  return false;
}

std::size_t count_virtio_devices(const Config& config) {
  const bool ports = config.exec || !config.ports.empty();
  return config.disks.size() + config.nics.size() + (config.console ? 1U : 0U) + (ports ? 1U : 0U) +
         (config.rng ? 1U : 0U);
}

std::string kernel_command_line(const Config& config) {
  std::string line;
  const auto add = [&line](std::string_view word) {
    line += line.empty() || word.empty() ? "" : " ";
    line += word;
  };
  if (!has_parameter(config.append, "console=")) {
    // Until the driver of hvc0 is there, the UART speaks for it.
    add(config.console ? "earlycon=uart8250,io,0x3f8 console=hvc0" : "console=ttyS0");
  }
  if (!has_parameter(config.append, "panic=")) {
    add("panic=-1");  // reset at once: the VM ends, and its console says why
  }
  if (config.exec) {
    add(kExecParameter);
  }
  add(config.append);
  if (config.transport == Transport::Mmio && has_parameter(config.append, "acpi=off")) {
    const auto devices = std::min(count_virtio_devices(config), layout::kVirtioMmioIrqs.size());
    for (std::size_t slot = 0; slot < devices; ++slot) {
      const auto range = layout::virtio_mmio(slot);
      add(fmt::format("virtio_mmio.device={}K@{:#x}:{}", range.size / layout::kKiB, raw(range.start),
                      layout::kVirtioMmioIrqs.at(slot)));
    }
  }
  return line;
}

}  // namespace martlet
