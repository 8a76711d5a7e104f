#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/pci/function.h"
#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "devices/virtio/device.h"
#include "devices/virtio/pci_layout.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/transport.h"
#include "vmm/base/doorbell.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/guest_memory.h"
#include "vmm/base/level_line.h"

namespace martlet::virtio {

/// virtio over PCI, modern only (virtio 1.2 §4.1). One BAR with a page for each: common configuration, ISR,
/// device configuration, notifications, MSI-X table, pending bits (pci_layout.h).
///
/// PciFunction's lock guards all registers. The event loop never takes it: what DriverInterrupts looks at
/// is atomic.
class VirtioPci final : public PciFunction, private DriverInterrupts {
 public:
  static constexpr std::uint16_t kNoVector = 0xffff;  // §4.1.5.1.2

  /// What it is wired to; all of it outlives this.
  struct Wiring {
    const GuestMemory& memory;
    EventLoop& loop;
    Doorbells& doorbells;
    MsiRouter& router;
  };
  /// Before the loop runs, or on its thread; so, too, the end. Throws HostError when the host is short of
  /// descriptors. One MSI-X vector for each queue and one for the configuration, up to Msix::kMaxVectors.
  VirtioPci(VirtioDevice& device, const Wiring& wiring);
  ~VirtioPci() override;

  /// INTA#, to be joined to PciHost::gsi() of the device number.
  [[nodiscard]] const LevelLine& intx() const noexcept { return intx_; }
  [[nodiscard]] std::uint8_t status() const noexcept { return state_.status(); }

 private:
  /// Registers that DeviceState does not keep. The vectors and the ISR are read by any thread.
  struct Registers {
    explicit Registers(std::size_t queues) : queue_vectors(queues) { reset(); }
    void reset() noexcept;

    std::uint32_t device_feature_select = 0;
    std::uint32_t driver_feature_select = 0;
    std::uint16_t queue_select = 0;
    std::atomic<std::uint16_t> config_vector = kNoVector;
    std::vector<std::atomic<std::uint16_t>> queue_vectors;
    std::atomic<std::uint8_t> isr = 0;
  };

  // PciFunction
  void on_bar_read(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept override;
  void on_bar_write(unsigned bar, std::uint64_t offset, std::span<const std::byte> bytes) noexcept override;
  void on_config_read(std::uint32_t offset, std::size_t length) noexcept override;
  void on_config_written(std::uint32_t offset, std::size_t length) noexcept override;
  [[nodiscard]] bool interrupting() const noexcept override;

  // DriverInterrupts
  void queue_used(std::uint16_t queue) noexcept override;
  void config_changed() noexcept override;
  void needs_reset() noexcept override;
  [[nodiscard]] int call_fd(std::uint16_t queue) const noexcept override;

  void read_common(std::uint64_t offset, std::span<std::byte> into) noexcept;
  void write_common(std::uint64_t offset, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] std::uint32_t common(pci_layout::Common field) const noexcept;
  [[nodiscard]] std::uint32_t queue_field(pci_layout::Common field) const noexcept;
  void set_common(pci_layout::Common field, std::uint32_t value);
  void set_queue_field(pci_layout::Common field, std::uint32_t value);
  void set_status(std::uint8_t value);
  void reset_queue(std::uint16_t index);
  [[nodiscard]] std::uint16_t checked_vector(std::uint32_t value) const noexcept;

  /// What PCI_CFG points at: the guest's own small window into the BAR.
  struct Window {
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
  };
  [[nodiscard]] std::optional<Window> config_window(std::uint32_t offset, std::size_t length) const noexcept;

  void interrupt(const std::atomic<std::uint16_t>& vector, std::uint8_t reason) noexcept;
  void raise_intx() const noexcept;
  void settle_intx() noexcept;
  void settle_doorbells() noexcept;

  Doorbells& doorbells_;
  EventLoop& loop_;
  LevelLine intx_;
  std::atomic<bool> intx_allowed_ = true;
  Registers registers_;
  std::size_t window_at_;  // the PCI_CFG capability
  Msix msix_;
  bool master_ = false;                            // the guest let the device be bus master
  std::vector<std::optional<GuestAddr>> rung_at_;  // each queue's doorbell
  DeviceState state_;                              // the last: its end still interrupts
};

}  // namespace martlet::virtio
