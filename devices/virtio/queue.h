#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio/wire.h"
#include "vmm/base/guest_addr.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

/// How a device reaches its driver. The transport's end: an MSI-X vector, an INTx wire, an MMIO interrupt.
class DriverInterrupts {
 public:
  /// "Buffers were used" for one queue. Any thread.
  virtual void queue_used(std::uint16_t queue) noexcept = 0;
  /// The configuration space changed (and with it the generation). Any thread.
  virtual void config_changed() noexcept = 0;
  /// A ring cannot be followed any more: sets DEVICE_NEEDS_RESET and tells the driver. Any thread.
  virtual void needs_reset() noexcept = 0;
  /// An eventfd that, when signalled, does what queue_used() does; -1 when there is none (a backend in the
  /// kernel then signals an eventfd of the device's, which calls queue_used()).
  [[nodiscard]] virtual int call_fd(std::uint16_t queue) const noexcept = 0;

 protected:
  ~DriverInterrupts() = default;
};

class VirtQueue;
class SplitQueue;
class PackedQueue;

/// One validated request: buffers that lie in guest memory, those to read first, then those to write.
/// An obligation: it is completed exactly once, by VirtQueue::complete; one that is destroyed instead goes
/// back to the driver with length 0. Never outlives its queue.
class DescriptorChain {
 public:
  using Buffer = std::span<std::byte>;

  DescriptorChain(DescriptorChain&& other) noexcept
      : queue_{std::exchange(other.queue_, nullptr)},
        buffers_{std::move(other.buffers_)},
        readable_{std::exchange(other.readable_, 0)},
        readable_bytes_{std::exchange(other.readable_bytes_, 0)},
        writable_bytes_{std::exchange(other.writable_bytes_, 0)},
        id_{other.id_},
        slots_{other.slots_} {}
  DescriptorChain& operator=(DescriptorChain&& other) noexcept;
  ~DescriptorChain() {
    if (queue_ != nullptr) {
      give_back();
    }
  }

  /// The guest may change these bytes at any time: copy, check the copy, use the copy.
  [[nodiscard]] std::span<const Buffer> readable() const noexcept { return {buffers_.data(), readable_}; }
  [[nodiscard]] std::span<const Buffer> writable() const noexcept {
    return std::span<const Buffer>{buffers_}.subspan(readable_);
  }
  /// Bytes in all; less than 4 GiB each, or the chain would have been refused.
  [[nodiscard]] std::uint32_t readable_bytes() const noexcept { return readable_bytes_; }
  [[nodiscard]] std::uint32_t writable_bytes() const noexcept { return writable_bytes_; }

  /// For queues alone: no other can make a Key.
  class Key {
    friend class SplitQueue;
    friend class PackedQueue;
    Key() = default;
  };
  DescriptorChain(VirtQueue& queue, Key) noexcept;

 private:
  friend class VirtQueue;
  friend class SplitQueue;
  friend class PackedQueue;
  void give_back() noexcept;
  void retire() noexcept;

  VirtQueue* queue_;  // null once completed
  std::vector<Buffer> buffers_;
  std::size_t readable_ = 0;
  std::uint32_t readable_bytes_ = 0;
  std::uint32_t writable_bytes_ = 0;
  std::uint16_t id_ = 0;     // split: head; packed: buffer id
  std::uint16_t slots_ = 0;  // descriptors it takes in a packed ring
  bool writable_seen_ = false;
};

/// What the driver told the transport of one queue, checked by VirtQueue::make.
struct QueueSetup {
  std::uint16_t index = 0;
  std::uint16_t size = 0;
  GuestAddr descriptors{};  ///< split: descriptor table; packed: descriptor ring
  GuestAddr driver{};       ///< split: avail ring; packed: driver event suppression
  GuestAddr device{};       ///< split: used ring; packed: device event suppression
  std::uint64_t features = 0;
};

/// The device's side of one virtqueue, split or packed (virtio 1.2 §2.7, §2.8). Its own indices are kept
/// here, never read back from guest memory. A malformed chain goes back with length 0 and the queue lives
/// on; a ring that cannot be followed any more is latched: pop() finds nothing, complete() still works for
/// what is in flight, and DriverInterrupts::needs_reset() is called once.
///
/// Malformed: a buffer not within one region of guest memory, readable after writable, more descriptors than the
/// queue has, 4 GiB or more in one direction; INDIRECT that was not agreed on, nested or followed by
/// more, a table of no descriptors, of half ones or of more than the queue has, a `next` outside the table.
/// Not to be followed: split rings with more available than the queue has, a head outside the table or in
/// flight already (to give it back would hand the driver memory that is in use); packed rings with a chain
/// that does not end before it meets descriptors in flight, or not made available.
///
/// One thread at a time. Never moves, because its chains know it.
class VirtQueue {
 public:
  /// Nothing if the rings do not lie in guest memory or are misaligned, or the size is not allowed: 1 to
  /// 32768, for split rings a power of two.
  [[nodiscard]] static std::unique_ptr<VirtQueue> make(const GuestMemory& memory, const QueueSetup& setup,
                                                       DriverInterrupts& interrupts);
  VirtQueue(const VirtQueue&) = delete;
  VirtQueue& operator=(const VirtQueue&) = delete;
  virtual ~VirtQueue() = default;

  /// The next request, or nothing when none waits. With nothing it has asked for a notification of the
  /// next, unless they are disabled, and told the driver of malformed chains.
  [[nodiscard]] virtual std::optional<DescriptorChain> pop() noexcept = 0;
  /// Gives `chain` back with `written` bytes written from the start of its writable part (more than that has
  /// counts as all). The driver sees it at once; it is interrupted by the next notify(). A chain that is not
  /// this queue's, or completed already, is left alone.
  virtual void complete(DescriptorChain&& chain, std::uint32_t written) noexcept = 0;
  struct Completion {
    DescriptorChain chain;
    std::uint32_t written = 0;
  };
  /// Several chains that mean something together only, as a frame over merged receive buffers does
  /// (§5.1.6.4): in this order, and the driver sees all of them or none. They are spent afterwards.
  virtual void complete_together(std::span<Completion> completions) noexcept = 0;
  /// Interrupts the driver if it wants to hear of what was completed since the last call. Once a batch.
  virtual void notify() noexcept = 0;

  /// Asks the driver not to notify while the device looks by itself.
  virtual void disable_notifications() noexcept = 0;
  /// Asks for notifications again; true when requests came in meanwhile, so pop() first.
  [[nodiscard]] virtual bool enable_notifications() noexcept = 0;

  [[nodiscard]] const QueueSetup& setup() const noexcept { return setup_; }
  [[nodiscard]] bool broken() const noexcept { return broken_; }

 protected:
  VirtQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts);

  [[nodiscard]] bool offers(Feature feature) const noexcept { return (setup_.features & feature) != 0; }
  /// The ring cannot be followed any more.
  void latch() noexcept;
  /// Adds one buffer to `chain`; false when it makes the chain malformed: not within one region of guest
  /// memory, readable after writable, 4 GiB or more in one direction. A buffer of no bytes is left out, wherever
  /// it points to.
  [[nodiscard]] bool add(DescriptorChain& chain, std::uint64_t addr, std::uint32_t len,
                         std::uint16_t flags) const noexcept;
  /// The table that an indirect descriptor refers to, if it may be one of at most `limit` descriptors.
  [[nodiscard]] std::optional<std::span<const std::byte>> indirect_table(std::uint64_t addr, std::uint32_t len,
                                                                         std::size_t limit) const noexcept;

  QueueSetup setup_;
  DriverInterrupts& interrupts_;
  bool broken_ = false;
  bool notifications_ = true;  // does the device want any?
  bool refused_ = false;       // did pop() give something back since the last notify()?

 private:
  friend class DescriptorChain;
  const GuestMemory& memory_;
  std::vector<std::vector<DescriptorChain::Buffer>> spare_;  // of completed chains, so that pop() allocates nothing
};

}  // namespace martlet::virtio
