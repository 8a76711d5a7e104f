#include "devices/virtio/queue.h"

#include <bit>
#include <limits>
#include <memory>
#include <utility>

#include "devices/virtio/packed_queue.h"
#include "devices/virtio/split_queue.h"
#include "devices/virtio/wire.h"

namespace martlet::virtio {

DescriptorChain::DescriptorChain(VirtQueue& queue, Key) noexcept : queue_{&queue} {
  if (!queue.spare_.empty()) {
    buffers_ = std::move(queue.spare_.back());
    queue.spare_.pop_back();
  }
}

DescriptorChain& DescriptorChain::operator=(DescriptorChain&& other) noexcept {
  if (this != &other) {
    std::destroy_at(this);  // what was held goes back
    std::construct_at(this, std::move(other));
  }
  return *this;
}

void DescriptorChain::give_back() noexcept { queue_->complete(std::move(*this), 0); }

/// Completed: nothing of it may be used any more, and its vector serves the next chain.
void DescriptorChain::retire() noexcept {
  buffers_.clear();
  queue_->spare_.push_back(std::move(buffers_));  // within what was reserved: no more chains than descriptors
  queue_ = nullptr;
  readable_ = 0;
  readable_bytes_ = writable_bytes_ = 0;
}

std::unique_ptr<VirtQueue> VirtQueue::make(const GuestMemory& memory, const QueueSetup& setup,
                                           DriverInterrupts& interrupts) {
  constexpr std::uint16_t kMaxSize = 32768;  // §2.7, §2.8.10.1
  const bool packed = (setup.features & kRingPacked) != 0;
  if (setup.size == 0 || setup.size > kMaxSize || (!packed && !std::has_single_bit(setup.size))) {
    return nullptr;
  }
  const auto area = [&](GuestAddr addr, std::uint64_t length, std::uint64_t alignment) {
    return raw(addr) % alignment == 0 ? memory.slice(addr, length) : std::nullopt;
  };
  // Sizes and alignments: §2.7 and §2.8.10.1.
  const auto descriptors = area(setup.descriptors, sizeof(SplitDescriptor) * setup.size, 16);
  const auto driver =
      packed ? area(setup.driver, sizeof(PackedEvent), 4) : area(setup.driver, SplitQueue::avail_bytes(setup.size), 2);
  const auto device =
      packed ? area(setup.device, sizeof(PackedEvent), 4) : area(setup.device, SplitQueue::used_bytes(setup.size), 4);
  if (!descriptors || !driver || !device) {
    return nullptr;
  }
  const RingAreas areas{RingMemory{*descriptors}, RingMemory{*driver}, RingMemory{*device}};
  if (packed) {
    return std::make_unique<PackedQueue>(memory, setup, interrupts, areas);
  }
  return std::make_unique<SplitQueue>(memory, setup, interrupts, areas);
}

VirtQueue::VirtQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts)
    : setup_{setup}, interrupts_{interrupts}, memory_{memory} {
  spare_.reserve(setup.size + std::size_t{1});  // as many as can be in flight, and one being refused
}

void VirtQueue::latch() noexcept {
  if (!broken_) {
    broken_ = true;
    interrupts_.needs_reset();
  }
}

bool VirtQueue::add(DescriptorChain& chain, std::uint64_t addr, std::uint32_t len, std::uint16_t flags) const noexcept {
  const bool writable = (flags & kWrite) != 0;
  if (!writable && chain.writable_seen_) {
    return false;  // §2.7.4.2: all to read come before all to write
  }
  chain.writable_seen_ = writable;
  if (len == 0) {
    return true;
  }
  auto& total = writable ? chain.writable_bytes_ : chain.readable_bytes_;
  const auto buffer = memory_.slice(GuestAddr{addr}, len);
  if (!buffer || len > std::numeric_limits<std::uint32_t>::max() - total) {
    return false;
  }
  total += len;
  chain.buffers_.push_back(*buffer);
  chain.readable_ += writable ? 0 : 1;
  return true;
}

std::optional<std::span<const std::byte>> VirtQueue::indirect_table(std::uint64_t addr, std::uint32_t len,
                                                                    std::size_t limit) const noexcept {
  constexpr std::uint32_t kEntry = sizeof(SplitDescriptor);
  if (!offers(kIndirectDescriptors) || len == 0 || len % kEntry != 0 || len / kEntry > limit) {
    return std::nullopt;
  }
  return memory_.slice(GuestAddr{addr}, len);
}

}  // namespace martlet::virtio
