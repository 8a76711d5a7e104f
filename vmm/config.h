#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/serial_target.h"
#include "devices/virtio/console_port_options.h"
#include "devices/virtio/disk_options.h"
#include "net/options.h"
#include "vmm/base/guest_memory.h"

namespace martlet {

/// How the guest finds its virtio devices.
enum class Transport { Pci, Mmio };

/// A machine to build: a plain aggregate that any front end can fill. Bad values are found by
/// whoever uses them, when the machine is built.
struct Config {
  std::string kernel;
  std::vector<std::string> initrds;  ///< concatenated, in this order
  std::optional<std::string> root;   ///< a directory to pack as the last initramfs
  std::optional<std::string> exec;   ///< a command to run in the initramfs instead of its /init
  std::string append;                ///< kernel parameters; they win over Martlet's own
  std::optional<std::string> dtb;    ///< "auto" or a file; none: no device tree
  std::uint32_t cpus = 1;
  std::uint64_t memory = 512ULL << 20U;  ///< bytes
  GuestMemory::Backing backing = GuestMemory::Backing::Anonymous;
  SerialTarget serial{};
  std::vector<virtio::DiskOptions> disks;
  std::vector<NetOptions> nics;
  std::optional<SerialTarget> console;     ///< hvc0
  std::vector<virtio::PortOptions> ports;  ///< beside it
  bool rng = false;
  Transport transport = Transport::Pci;
  std::optional<std::chrono::milliseconds> timeout;
  std::size_t recorded_exits = 0;  ///< of each vCPU, how many of its last exits are kept for people
  bool recorded_queues = false;    ///< and each turn of a virtio queue
};

/// How many virtio devices the machine has.
[[nodiscard]] std::size_t count_virtio_devices(const Config& config);

/// The kernel's whole command line: consoles and an end to a panic, unless `append` decides otherwise, and
/// where the virtio-mmio devices are, for a kernel that was told to ignore ACPI.
[[nodiscard]] std::string kernel_command_line(const Config& config);

/// Whether a word of a kernel's command line begins with `name`, e.g. "panic=".
[[nodiscard]] bool has_parameter(std::string_view line, std::string_view name);

}  // namespace martlet
