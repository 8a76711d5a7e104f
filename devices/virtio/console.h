#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/virtio/console_port.h"
#include "devices/virtio/console_wire.h"
#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// The guest's hvc0 (virtio 1.2 §5.3): two queues, no messages, and its size in the configuration space.
///
/// Named ports are a device of their own, ConsolePorts, because VIRTIO_CONSOLE_F_MULTIPORT does a console no good:
/// Linux then brings it up in a worker beside the boot, and throws away what the kernel says between the console's
/// registration and its entry in the driver's list (init_port_console() of drivers/char/virtio_console.c). And the size
/// comes in a message, whose two numbers Linux before 6.15 reads the wrong way round.
///
/// VIRTIO_CONSOLE_F_EMERG_WRITE works at any time, also before there is a driver.
class Console final : public VirtioDevice {
 public:
  /// Of `hooks`, `connected` stays empty: a console is there whether or not anybody watches it. Throws HostError when
  /// `target` cannot be opened.
  Console(EventLoop& loop, const SerialTarget& target, ConsolePort::Hooks hooks = {});

  // --- VirtioDevice
  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Console; }
  [[nodiscard]] std::uint64_t features() const noexcept override;
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueueSizes; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override { config_.read(offset, into); }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override;
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return config_.generation(); }
  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override;

  // --- The host's side, on the event loop's thread
  /// The terminal has this size now; before the first call nobody knows, and the guest reads 0 × 0.
  void resize(ConsoleSize size) noexcept;
  [[nodiscard]] ConsolePort& port() noexcept { return port_; }

 private:
  static constexpr std::array<std::uint16_t, 2> kQueueSizes{128, 128};

  EventLoop& loop_;
  ConsolePort port_;
  std::uint64_t accepted_ = 0;
  DriverInterrupts* interrupts_ = nullptr;

  DeviceConfig<ConsoleConfig> config_{{}};
};

}  // namespace martlet::virtio
