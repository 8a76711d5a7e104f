#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/console_control.h"
#include "devices/virtio/console_options.h"
#include "devices/virtio/console_port.h"
#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// A console and, behind it, named ports (virtio 1.2 §5.3). Port 0 is the guest's hvc0.
///
/// VIRTIO_CONSOLE_F_MULTIPORT is offered only where there are named ports: without it a console costs two queues
/// instead of four, no messages, and gets its size from the configuration space. (With it the size comes in a
/// message, whose two numbers Linux before 6.15 reads the wrong way round.) A driver that does not accept it has
/// port 0. VIRTIO_CONSOLE_F_EMERG_WRITE works at any time, also before there is a driver.
class Console final : public VirtioDevice {
 public:
  using Hooks = ConsolePort::Hooks;

  /// `hooks` are port 0's, `named` those of the first named ports; `connected` stays empty. Throws HostError when a
  /// place on the host cannot be opened.
  Console(EventLoop& loop, const ConsoleOptions& options, Hooks hooks = {}, std::vector<Hooks> named = {});

  // --- VirtioDevice
  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Console; }
  [[nodiscard]] std::uint64_t features() const noexcept override;
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
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
  /// Port 0, for what is typed.
  [[nodiscard]] ConsolePort& port() noexcept { return *ports_.front(); }
  /// Any, by its number.
  [[nodiscard]] ConsolePort& port(std::size_t number) noexcept { return *ports_[number]; }
  /// At the end, when the guest is gone: lets readers take the rest of the output, for as long as `patience`.
  /// Returns how many bytes of port 0's nobody took.
  [[nodiscard]] std::uint64_t finish(std::chrono::milliseconds patience) noexcept;
  /// What people must know, a line each: where ptys are …
  [[nodiscard]] std::vector<std::string> ptys() const;
  /// … and, after finish(), what went wrong, or lost with a named port.
  [[nodiscard]] std::vector<std::string> troubles() const;

 private:
  /// §5.3.4
  struct Config {
    ConsoleSize size{};
    std::uint32_t max_ports = 0;
    std::uint32_t emergency_write = 0;
  };
  static_assert(sizeof(Config) == 12);
  static constexpr std::uint16_t kControlReceive = 2;
  static constexpr std::uint16_t kControlTransmit = 3;

  /// Null when the driver has not accepted several ports, and this is not the first.
  [[nodiscard]] ConsolePort* port_of(std::uint16_t queue) noexcept;
  [[nodiscard]] bool multiport() const noexcept;

  EventLoop& loop_;
  std::vector<std::string> names_;
  std::vector<std::uint16_t> queue_sizes_;
  std::vector<std::uint64_t> lost_;
  ConsoleControl control_;
  std::vector<std::unique_ptr<ConsolePort>> ports_;
  std::uint64_t accepted_ = 0;
  DriverInterrupts* interrupts_ = nullptr;

  DeviceConfig<Config> config_;
};

}  // namespace martlet::virtio
