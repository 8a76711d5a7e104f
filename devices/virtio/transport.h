#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "devices/virtio/device.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

/// The state machine that all transports share (virtio 1.2 §2.1, §3.1, §4): status, feature negotiation,
/// queue registers. A transport translates its registers to these calls; reads and writes come from vCPU
/// threads, one at a time (it holds its own lock), and what concerns the device is done on the event loop
/// while the vCPU waits. The loop never waits for a vCPU or for that lock.
///
/// What the specification forbids is ignored: queue registers while the queue is enabled, features after
/// FEATURES_OK, notifications before DRIVER_OK, an index beyond the last queue (reads as 0).
class DeviceState final {
 public:
  /// `interrupts` outlives this. The device's feature bits gain VERSION_1, and the rings' own.
  DeviceState(VirtioDevice& device, const GuestMemory& memory, EventLoop& loop, DriverInterrupts& interrupts);
  DeviceState(const DeviceState&) = delete;
  DeviceState& operator=(const DeviceState&) = delete;
  ~DeviceState();

  [[nodiscard]] VirtioDevice& device() const noexcept { return device_; }
  [[nodiscard]] std::uint16_t queue_count() const noexcept { return static_cast<std::uint16_t>(queues_.size()); }

  [[nodiscard]] std::uint8_t status() const noexcept { return status_.load(std::memory_order_acquire); }
  /// 0 resets: when this returns, the device is stopped and nothing of it touches guest memory any more.
  void write_status(std::uint8_t value);
  /// DriverInterrupts::needs_reset()'s half of the work: the bit. Any thread. True if it was not set before.
  bool set_needs_reset() noexcept;

  /// Feature words: `select` 0 for bits 0 to 31, 1 for 32 to 63, others are 0.
  [[nodiscard]] std::uint32_t offered_features(std::uint32_t select) const noexcept;
  [[nodiscard]] std::uint32_t accepted_features(std::uint32_t select) const noexcept;
  void accept_features(std::uint32_t select, std::uint32_t bits) noexcept;

  /// One queue's registers, as the driver wrote them.
  struct Queue {
    std::uint16_t max_size = 0;
    std::uint16_t size = 0;
    bool enabled = false;
    std::uint64_t descriptors = 0;
    std::uint64_t driver = 0;
    std::uint64_t device = 0;
    Fd kick = make_eventfd();
  };
  /// Null when there is no such queue.
  [[nodiscard]] const Queue* queue(std::uint32_t index) const noexcept;
  void set_queue_size(std::uint32_t index, std::uint16_t size) noexcept;
  enum class Area { Descriptors, Driver, Device };
  /// Replaces the low (`word` 0) or high (1) half of an area's address.
  void set_queue_address(std::uint32_t index, Area area, unsigned word, std::uint32_t value) noexcept;
  void enable_queue(std::uint32_t index);
  /// VIRTIO_F_RING_RESET (§2.6.1): the queue is stopped and disabled when this returns.
  void reset_queue(std::uint32_t index);

 private:
  void start();
  void start_queue(std::uint16_t index);
  void reset();

  VirtioDevice& device_;
  const GuestMemory& memory_;
  EventLoop& loop_;
  DriverInterrupts& interrupts_;
  std::uint64_t offered_ = 0;
  std::uint64_t accepted_ = 0;
  std::atomic<std::uint8_t> status_ = 0;
  std::vector<Queue> queues_;
};

}  // namespace martlet::virtio
