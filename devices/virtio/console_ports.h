#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/console_control.h"
#include "devices/virtio/console_port.h"
#include "devices/virtio/console_port_options.h"
#include "devices/virtio/console_wire.h"
#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// Named ports, by virtio 1.2 §5.3 a console with VIRTIO_CONSOLE_F_MULTIPORT, of which none is a console: that is
/// another device's (Console says why). Their numbers are their places in the list. A driver that does not accept
/// MULTIPORT has the first.
class ConsolePorts final : public VirtioDevice {
 public:
  /// One port at least, and check_ports() has nothing against them. `hooks` are those of the first ones; `connected`
  /// stays empty. Throws HostError when a place on the host cannot be opened.
  ConsolePorts(EventLoop& loop, const std::vector<PortOptions>& options, std::vector<ConsolePort::Hooks> hooks = {});

  // --- VirtioDevice
  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Console; }
  [[nodiscard]] std::uint64_t features() const noexcept override;
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override { config_.read(offset, into); }
  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override;

  // --- The host's side, on the event loop's thread
  [[nodiscard]] ConsolePort& port(std::size_t number) noexcept { return *ports_[number]; }
  /// At the end, when the guest is gone: lets readers take the rest of the output, for as long as `patience` in all.
  void finish(std::chrono::milliseconds patience) noexcept;
  /// What people must know, a line each: where ptys are …
  [[nodiscard]] std::vector<std::string> ptys() const;
  /// … and, after finish(), what went wrong, or was lost.
  [[nodiscard]] std::vector<std::string> troubles() const;

 private:
  static constexpr std::uint16_t kControlReceive = 2;
  static constexpr std::uint16_t kControlTransmit = 3;

  /// Null when the driver has not accepted several ports, and this is not the first.
  [[nodiscard]] ConsolePort* port_of(std::uint16_t queue) noexcept;
  [[nodiscard]] bool multiport() const noexcept { return (accepted_ & kConsoleMultiport) != 0; }

  std::vector<std::string> names_;
  std::vector<std::uint16_t> queue_sizes_;
  std::vector<std::uint64_t> lost_;
  ConsoleControl control_;
  std::vector<std::unique_ptr<ConsolePort>> ports_;
  std::uint64_t accepted_ = 0;

  DeviceConfig<ConsoleConfig> config_;
};

}  // namespace martlet::virtio
