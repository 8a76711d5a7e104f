#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/virtio/queue.h"
#include "devices/virtio/wire.h"

namespace martlet::virtio {

/// A device behind any transport. It owns its queues between start_queue() and stop_queue() or stop(),
/// and touches them on the event loop's thread only.
///
/// The transport calls start() when the driver sets DRIVER_OK, then start_queue() for each enabled queue;
/// with VIRTIO_F_RING_RESET single queues may be stopped and started again. None of it throws: what goes
/// wrong with a request is the request's answer.
class VirtioDevice {
 public:
  VirtioDevice() = default;
  VirtioDevice(const VirtioDevice&) = delete;
  VirtioDevice& operator=(const VirtioDevice&) = delete;
  virtual ~VirtioDevice() = default;

  // --- Any thread, at any time. The first three never change once the transport has been made.

  [[nodiscard]] virtual DeviceId id() const noexcept = 0;
  /// The device's own feature bits, and kInOrder if it completes in order. The transport adds the rings'.
  [[nodiscard]] virtual std::uint64_t features() const noexcept = 0;
  /// Feature bits of the rings that it cannot have: the transport does not offer them.
  [[nodiscard]] virtual std::uint64_t refused_ring_features() const noexcept { return 0; }
  /// The largest size of each queue, powers of two; as many as there are queues.
  [[nodiscard]] virtual std::span<const std::uint16_t> queue_sizes() const noexcept = 0;

  /// The device's configuration space; bytes beyond its end read as 0, and writes there are ignored. May be
  /// called on vCPU threads while the loop changes it: the device guards it.
  virtual void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept = 0;
  virtual void write_config(std::uint32_t /*offset*/, std::span<const std::byte> /*bytes*/) noexcept {}
  /// Changes whenever the configuration space does (§2.5.1).
  [[nodiscard]] virtual std::uint32_t config_generation() const noexcept { return 0; }

  // --- The event loop's thread only.

  /// The driver is ready; `features` are what both sides agreed on. `interrupts` lives until stop() returned.
  virtual void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept = 0;
  /// The queue is the device's until it is stopped. Requests may wait in it already. `kick` is readable
  /// when the driver notifies (for backends that serve the queue themselves; else notified() is called).
  virtual void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept = 0;
  /// Asked after start_queue(): true if somebody else reads `kick` until the queue is stopped (vhost). The
  /// transport then leaves it alone and never calls notified().
  [[nodiscard]] virtual bool serves_itself(std::uint16_t /*index*/) const noexcept { return false; }
  /// The driver notified the queue. Only while it is started.
  virtual void notified(std::uint16_t index) noexcept = 0;
  /// The queue is gone when this returns: its requests completed or dropped, nothing in flight touches
  /// guest memory any more. A queue that is not started is left alone.
  virtual void stop_queue(std::uint16_t index) noexcept = 0;
  /// All queues, and back to how it was before start().
  virtual void stop() noexcept = 0;
};

}  // namespace martlet::virtio
