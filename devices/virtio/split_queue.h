#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/virtio/queue.h"
#include "devices/virtio/ring_memory.h"
#include "devices/virtio/wire.h"

namespace martlet::virtio {

/// A split virtqueue (virtio 1.2 §2.7). Made by VirtQueue::make.
class SplitQueue final : public VirtQueue {
 public:
  /// With the event index words, which a driver may leave out if it does not use them; but then other
  /// data lies there, or nothing, and nobody puts a ring at the very end of memory.
  static constexpr std::uint64_t avail_bytes(std::uint16_t size) noexcept { return 6 + 2 * std::uint64_t{size}; }
  static constexpr std::uint64_t used_bytes(std::uint16_t size) noexcept { return 6 + 8 * std::uint64_t{size}; }

  SplitQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts, const RingAreas& areas);

  [[nodiscard]] std::optional<DescriptorChain> pop() noexcept override;
  void complete(DescriptorChain&& chain, std::uint32_t written) noexcept override;
  void complete_together(std::span<Completion> completions) noexcept override;
  void notify() noexcept override;
  void disable_notifications() noexcept override;
  [[nodiscard]] bool enable_notifications() noexcept override;

 private:
  [[nodiscard]] bool look() noexcept;
  [[nodiscard]] bool arm() noexcept;
  [[nodiscard]] bool follow(DescriptorChain& chain, std::uint16_t head) const noexcept;
  [[nodiscard]] bool follow_table(DescriptorChain& chain, std::span<const std::byte> table) const noexcept;
  void put_used(DescriptorChain& chain, std::uint32_t written) noexcept;
  void publish_used() noexcept;

  RingMemory descriptors_;
  RingMemory avail_;
  RingMemory used_;
  std::uint16_t mask_;
  bool event_index_;
  std::uint16_t next_avail_ = 0;  // what pop() takes next
  std::uint16_t seen_avail_ = 0;  // up to where the driver is known to have filled the ring
  std::uint16_t next_used_ = 0;
  std::uint32_t unnotified_ = 0;         // completed since the last notify(), 65536 counts as ever more
  std::vector<std::uint8_t> in_flight_;  // by head
};

}  // namespace martlet::virtio
