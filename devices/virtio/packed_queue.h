#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "devices/virtio/queue.h"
#include "devices/virtio/ring_memory.h"
#include "devices/virtio/wire.h"

namespace martlet::virtio {

/// A packed virtqueue (virtio 1.2 §2.8). Made by VirtQueue::make.
///
/// Buffer ids are the driver's own business: whatever it chose is handed back, and nothing here is indexed by
/// them. What is bounded is the ring: chains in flight never take more slots than it has.
class PackedQueue final : public VirtQueue {
 public:
  PackedQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts, const RingAreas& areas);

  [[nodiscard]] std::optional<DescriptorChain> pop() noexcept override;
  void complete(DescriptorChain&& chain, std::uint32_t written) noexcept override;
  void complete_together(std::span<Completion> completions) noexcept override;
  void notify() noexcept override;
  void disable_notifications() noexcept override;
  [[nodiscard]] bool enable_notifications() noexcept override;

 private:
  /// A place in the ring and the lap it is in: the wrap counter is 1 in the first (§2.8.1).
  struct Position {
    std::uint16_t slot = 0;
    bool wrap = true;
  };
  [[nodiscard]] Position advanced(Position from, std::uint16_t slots) const noexcept;

  [[nodiscard]] static bool available(std::uint16_t flags, bool wrap) noexcept;
  [[nodiscard]] bool look() const noexcept;
  [[nodiscard]] bool arm() noexcept;
  enum class Walk { Good, Malformed, Endless };
  [[nodiscard]] Walk follow(DescriptorChain& chain) const noexcept;
  [[nodiscard]] bool follow_table(DescriptorChain& chain, std::span<const std::byte> table) const noexcept;
  /// Flags of a used descriptor, still to be stored.
  struct Flags {
    std::size_t offset = 0;
    std::uint16_t value = 0;
  };
  [[nodiscard]] std::optional<Flags> put_used(DescriptorChain& chain, std::uint32_t written) noexcept;

  RingMemory ring_;
  RingMemory driver_event_;
  RingMemory device_event_;
  bool event_index_;
  Position next_avail_;
  Position next_used_;
  std::uint16_t in_flight_ = 0;   // slots
  std::uint32_t unnotified_ = 0;  // slots completed since the last notify(); the ring's size counts as ever more
};

}  // namespace martlet::virtio
