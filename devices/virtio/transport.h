#pragma once

#include <atomic>
#include <cstdint>
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
/// FEATURES_OK, notifications before DRIVER_OK, an index beyond the last queue (reads as 0). An enabled queue
/// whose rings cannot be is not started: DEVICE_NEEDS_RESET tells, and the other queues carry on.
class DeviceState final {
 public:
  /// All four outlive this. The device's feature bits gain VERSION_1, and the rings' own. Before the loop runs,
  /// or on its thread: the kick eventfds are watched from now on, so that nothing can fail later.
  DeviceState(VirtioDevice& device, const GuestMemory& memory, EventLoop& loop, DriverInterrupts& interrupts);
  DeviceState(const DeviceState&) = delete;
  DeviceState& operator=(const DeviceState&) = delete;
  /// As a reset, and the loop knows it no more.
  ~DeviceState();

  [[nodiscard]] VirtioDevice& device() const noexcept { return device_; }
  [[nodiscard]] std::uint16_t queue_count() const noexcept { return static_cast<std::uint16_t>(queues_.size()); }

  [[nodiscard]] std::uint8_t status() const noexcept { return status_.load(std::memory_order_acquire); }
  /// Sets bits; only 0 takes any away, by a reset: when this returns, the device is stopped and
  /// nothing of it touches guest memory any more. FEATURES_OK stays clear unless what was accepted was
  /// offered and VERSION_1 is part of it (§3.1.1), DRIVER_OK unless FEATURES_OK is set.
  void write_status(std::uint8_t value);
  /// DriverInterrupts::needs_reset()'s half of the work: the bit. Any thread. True if it was not set before.
  bool set_needs_reset() noexcept;

  /// Feature words: `select` 0 for bits 0 to 31, 1 for 32 to 63, others are 0.
  [[nodiscard]] std::uint32_t offered_features(std::uint32_t select) const noexcept;
  [[nodiscard]] std::uint32_t accepted_features(std::uint32_t select) const noexcept;
  void accept_features(std::uint32_t select, std::uint32_t bits) noexcept;

  /// One queue's registers, as the driver wrote them: a size or an address may be anything. Signals on
  /// `kick` notify the device once the queue is started; before that they are forgotten.
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
  /// After DRIVER_OK the queue is started at once.
  void enable_queue(std::uint32_t index);
  /// MMIO's QueueReady = 0 (§4.2.2): the queue is stopped when this returns. Its registers stay.
  void disable_queue(std::uint32_t index);
  /// VIRTIO_F_RING_RESET (§2.6.1): stopped, and its registers as after a reset. Ignored if not negotiated.
  void reset_queue(std::uint32_t index);

 private:
  // Who reads a queue's kick eventfd. Known to the loop's thread only.
  enum class Served : std::uint8_t { NotAtAll, ByNotification, ByItself };
  struct Unwatched {};
  DeviceState(Unwatched, VirtioDevice& device, const GuestMemory& memory, EventLoop& loop,
              DriverInterrupts& interrupts);

  [[nodiscard]] bool has(std::uint8_t status_bits) const noexcept { return (status() & status_bits) == status_bits; }
  [[nodiscard]] Queue* changeable(std::uint32_t index) noexcept;
  void reset();

  // On the loop's thread.
  void start();
  void start_queue(std::uint16_t index);
  void stop_queue(std::uint16_t index);
  void stop();
  void serve(std::uint16_t index, Served served);
  void kicked(std::uint16_t index);

  VirtioDevice& device_;
  const GuestMemory& memory_;
  EventLoop& loop_;
  DriverInterrupts& interrupts_;
  std::uint64_t offered_ = 0;
  std::uint64_t accepted_ = 0;
  std::atomic<std::uint8_t> status_ = 0;
  std::vector<Queue> queues_;
  std::vector<Served> served_;
};

}  // namespace martlet::virtio
