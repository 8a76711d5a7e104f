#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "devices/virtio/transport.h"
#include "vmm/base/bus.h"
#include "vmm/base/doorbell.h"
#include "vmm/base/irq_line.h"

namespace martlet::virtio {

/// The MMIO transport, version 2 (virtio 1.2 §4.2): a page of registers and one edge-triggered interrupt.
///
/// Registers take aligned 32-bit accesses only (§4.2.2.2); others read 0 and change nothing. The device's
/// configuration space, from 0x100 on, takes any. A notification does not come here while the doorbells hold:
/// the event loop hears of it directly; without them it is an exit, and does the same.
class VirtioMmio final : public BusDevice, private DriverInterrupts {
 public:
  /// What it takes on the bus.
  static constexpr std::uint64_t kSize = 0x1000;

  /// All outlive it.
  struct Wiring {
    VirtioDevice& device;
    const GuestMemory& memory;
    EventLoop& loop;
    const IrqLine& irq;
    Doorbells& doorbells;
    GuestAddr base;  ///< where the machine puts it on the bus
  };

  /// All that a guest can see or change, beside DeviceState.
  struct State {
    std::uint32_t device_features_select = 0;
    std::uint32_t driver_features_select = 0;
    std::uint32_t queue_select = 0;  ///< as written: any value
  };

  /// Before the event loop runs, or on its thread. Throws HostError if the host runs out of descriptors.
  explicit VirtioMmio(const Wiring& wiring);
  ~VirtioMmio() override;

  void read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  enum class Register : std::uint64_t;

  [[nodiscard]] std::uint32_t read_register(Register reg) noexcept;
  [[nodiscard]] std::uint32_t read_locked(Register reg) noexcept;
  void write_register(Register reg, std::uint32_t value);
  void write_locked(Register reg, std::uint32_t value);
  void write_status(std::uint32_t value);
  void interrupt(std::uint32_t cause) noexcept;

  void queue_used(std::uint16_t queue) noexcept override;
  void config_changed() noexcept override;
  void needs_reset() noexcept override;
  [[nodiscard]] int call_fd(std::uint16_t /*queue*/) const noexcept override { return -1; }  // who would set the cause?

  const IrqLine& irq_;
  Doorbells& doorbells_;
  GuestAddr notify_;         // where the guest writes the number of a queue
  std::uint16_t bells_ = 0;  // the first so many queues have a doorbell
  std::atomic<std::uint32_t> interrupt_causes_ = 0;
  std::mutex mutex_;  // guards what follows
  State registers_;
  DeviceState state_;
};

}  // namespace martlet::virtio
