#pragma once
// A virtio device, however it is attached.

#include "pvh.h"
#include "virtio/wire.h"

namespace guest::virtio {

inline constexpr u16 kMostQueues = 16;  // of a device, as far as these guests use them

/// Where a queue's rings are, and which interrupt tells of its used buffers.
struct QueueAddresses {
  u16 index = 0;
  u16 size = 0;
  u64 descriptors = 0;
  u64 driver = 0;
  u64 device = 0;
  u16 vector = kNoVector;  ///< of MSI-X
};

class Transport {
 public:
  [[nodiscard]] virtual u32 device_id() const = 0;
  [[nodiscard]] virtual u8 status() const = 0;
  virtual void set_status(u8 status) const = 0;
  [[nodiscard]] virtual u32 offered(u32 select) const = 0;
  [[nodiscard]] virtual u32 accepted(u32 select) const = 0;  // MMIO cannot read it back: all ones
  virtual void accept(u32 select, u32 bits) const = 0;
  /// The queue's largest size; 0 when there is no such queue.
  [[nodiscard]] virtual u16 queue_limit(u16 index) const = 0;
  [[nodiscard]] virtual bool queue_enabled(u16 index) const = 0;
  virtual void enable_queue(const QueueAddresses& queue) = 0;
  /// With VIRTIO_F_RING_RESET: the queue is the driver's again.
  virtual void reset_queue(u16 index) const = 0;
  virtual void notify(u16 index) const = 0;
  /// Takes the interrupt status (bit 0: queues, bit 1: configuration), and the interrupt away.
  [[nodiscard]] virtual u32 take_interrupt() const = 0;
  [[nodiscard]] virtual u32 config_generation() const = 0;
  /// The device's configuration space is memory on every transport.
  [[nodiscard]] virtual u64 config() const = 0;

  /// MSI-X: entry i of the table sends `first_vector` + i to this CPU, the configuration's interrupt is entry
  /// 0. How many entries there are, kMostQueues + 1 at most; 0 without MSI-X.
  virtual u16 use_msix(u8 /*first_vector*/) { return 0; }
  /// The IO-APIC's pin of the device's wire, on from now on.
  virtual u32 use_wire() = 0;
  /// A wire that stays raised until the interrupt is taken; else it may only be pulsed.
  [[nodiscard]] virtual bool wire_is_level() const = 0;

  [[nodiscard]] u64 features() const { return offered(0) | (u64{offered(1)} << 32U); }
};

}  // namespace guest::virtio
