#include "vmm/virtio_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/virtio/block.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vhost_user_net.h"
#include "net/kept_port.h"
#include "net/open_backend.h"
#include "vmm/base/error.h"
#include "vmm/exec.h"
#include "vmm/terminal.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

// What ACPI and the MP table say is what the bus does.
static_assert(layout::kPciEcam.size == PciHost::kEcamSize && layout::kPciSlots == PciHost::kDevices);
static_assert(layout::kPciIrqs.size() == PciHost::kGsiCount && layout::kPciIrqs[1] == PciHost::gsi(1) &&
              layout::kPciIrqs[0] == PciHost::gsi(0));
static_assert(layout::kVirtioMmioSlot == virtio::VirtioMmio::kSize);

std::unique_ptr<virtio::VirtioDevice> make_net(EventLoop& loop, const GuestMemory& memory, const NetOptions& options) {
  const auto mac = guest_address(options);
  const auto lost = [way = describe_way(options)] {
    say("-n " + way + " has ended: the cable of its network card is out");
  };
  if (!options.vhost_user.empty()) {
    return std::make_unique<virtio::VhostUserNet>(
        loop, memory,
        virtio::VhostUserNet::Options{
            .back_end = {.path = options.vhost_user, .pairs = options.queues, .mtu = options.port.mtu.value_or(0)},
            .mac = mac,
            .lost = lost});
  }
  const virtio::RateLimits limits{.bytes = options.port.rate, .burst = options.port.burst};
  // On a bridge the port's own queue, in the kernel, limits what goes to the guest.
  const bool by_port = !options.bridge.empty();
  return std::make_unique<virtio::Net>(loop, open_backend(options, mac, say),
                                       virtio::Net::Options{.mac = mac,
                                                            .mtu = options.port.mtu.value_or(0),
                                                            .to_guest = by_port ? virtio::RateLimits{} : limits,
                                                            .from_guest = limits,
                                                            .vhost = options.vhost,
                                                            .memory = &memory,
                                                            .lost = lost});
}

/// All of them, Martlet's own first. The two consoles can share stdio, a port needs it for itself.
std::vector<virtio::PortOptions> checked_ports(const Config& config) {
  auto ports = config.exec ? exec_ports() : std::vector<virtio::PortOptions>{};
  ports.insert(ports.end(), config.ports.begin(), config.ports.end());
  virtio::check_ports(ports);
  const auto is_stdio = [](const SerialTarget& target) { return target.kind == SerialTarget::Kind::Stdio; };
  const std::string_view console = is_stdio(config.serial)                       ? "--serial"
                                   : config.console && is_stdio(*config.console) ? "--console"
                                                                                 : "";
  const auto port = std::ranges::find_if(ports, is_stdio, &virtio::PortOptions::target);
  if (!console.empty() && port != ports.end()) {
    throw HostError{
        fmt::format("--port name={},stdio: stdin and stdout are the console's; lead that elsewhere, for "
                    "example by {} null",
                    port->name, console)};
  }
  return ports;
}

}  // namespace

VirtioDevices::VirtioDevices(const Config& config, const Host& host)
    : msi_{host.vm, host.trouble}, doorbells_{host.vm, host.trouble} {
  const bool pci = config.transport == Transport::Pci;
  const std::size_t most = pci ? PciHost::kDevices - 1 : layout::kVirtioMmioIrqs.size();
  if (const auto wanted = count_virtio_devices(config); wanted > most) {
    throw HostError{fmt::format("{} virtio devices are too many: --transport {} has room for {}", wanted,
                                pci ? "pci" : "mmio", most)};
  }
  create(config, host);
  if (devices_.empty()) {
    return;
  }
  if (pci) {
    plug_into_pci(host);
  } else {
    plug_into_mmio(host);
  }
}

void VirtioDevices::create(const Config& config, const Host& host) {
  // All that can be known beforehand, so that a mistake leaves no file behind.
  virtio::check_serials(config.disks);
  const auto port_options = checked_ports(config);
  for (const auto& options : config.disks) {
    auto disk = std::make_unique<virtio::Block>(host.loop, options);
    disks_.push_back(disk.get());
    devices_.push_back(std::move(disk));
  }
  for (const auto& options : config.nics) {
    devices_.push_back(make_net(host.loop, host.memory, options));
  }
  if (config.console) {
    auto console = std::make_unique<virtio::Console>(host.loop, *config.console, host.console);
    console_ = console.get();
    devices_.push_back(std::move(console));
  }
  if (!port_options.empty()) {
    auto ports = std::make_unique<virtio::ConsolePorts>(host.loop, port_options, host.exec);
    ports_ = ports.get();
    devices_.push_back(std::move(ports));
  }
  if (config.rng) {
    devices_.push_back(std::make_unique<virtio::Rng>());
  }
  if (host.recorder != nullptr) {
    for (auto& device : devices_) {
      device = host.recorder->watched(std::move(device));
    }
  }
}

void VirtioDevices::begin() {
  for (auto* disk : disks_) {
    disk->begin();
  }
}

void VirtioDevices::resize_disks() noexcept {
  for (auto* disk : disks_) {
    disk->resized();
  }
}

std::uint64_t VirtioDevices::finish(std::chrono::milliseconds patience) noexcept {
  if (ports_ != nullptr) {
    ports_->finish(patience);
  }
  return console_ != nullptr ? console_->port().finish(patience) : 0;
}

std::vector<std::string> VirtioDevices::ptys() const {
  auto lines = ports_ != nullptr ? ports_->ptys() : std::vector<std::string>{};
  if (console_ != nullptr && !console_->port().host().pty_path().empty()) {
    lines.insert(lines.begin(), "the virtio console is " + console_->port().host().pty_path());
  }
  return lines;
}

std::vector<std::string> VirtioDevices::troubles() const {
  auto lines = ports_ != nullptr ? ports_->troubles() : std::vector<std::string>{};
  if (console_ != nullptr && !console_->port().host().trouble().empty()) {
    lines.insert(lines.begin(), console_->port().host().trouble());
  }
  return lines;
}

void VirtioDevices::plug_into_pci(const Host& host) {
  pci_ = std::make_unique<PciHost>(layout::kPciMmio32);
  for (const auto& device : devices_) {
    auto& function = *functions_.emplace_back(std::make_unique<virtio::VirtioPci>(
        *device,
        virtio::VirtioPci::Wiring{.memory = host.memory, .loop = host.loop, .doorbells = doorbells_, .router = msi_}));
    const auto number = pci_->add(function);
    host.vm.connect(function.intx(), PciHost::gsi(number));
  }
  host.buses.ports.insert(layout::kPciConfigAddress.start, layout::kPciConfigAddress.size, "pci config address",
                          pci_->address_port());
  host.buses.ports.insert(layout::kPciConfigData.start, layout::kPciConfigData.size, "pci config data",
                          pci_->data_port());
  host.buses.mmio.insert(raw(layout::kPciEcam.start), layout::kPciEcam.size, "pci ecam", pci_->ecam());
  host.buses.mmio.insert(raw(layout::kPciMmio32.start), layout::kPciMmio32.size, "pci bars", pci_->window());
}

void VirtioDevices::plug_into_mmio(const Host& host) {
  for (std::size_t slot = 0; slot < devices_.size(); ++slot) {
    const auto range = layout::virtio_mmio(slot);
    const auto& line = *lines_.emplace_back(std::make_unique<IrqLine>());
    auto& registers =
        *slots_.emplace_back(std::make_unique<virtio::VirtioMmio>(virtio::VirtioMmio::Wiring{.device = *devices_[slot],
                                                                                             .memory = host.memory,
                                                                                             .loop = host.loop,
                                                                                             .irq = line,
                                                                                             .doorbells = doorbells_,
                                                                                             .base = range.start}));
    host.vm.connect(line, layout::kVirtioMmioIrqs.at(slot));
    host.buses.mmio.insert(raw(range.start), range.size, fmt::format("virtio-mmio {}", slot), registers);
  }
}

}  // namespace martlet
