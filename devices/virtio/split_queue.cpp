#include "devices/virtio/split_queue.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace martlet::virtio {
namespace {

// Both rings begin alike, §2.7.6 and §2.7.8; their event words follow the last entry.
constexpr std::size_t kFlags = 0, kIndex = 2, kEntries = 4;

std::size_t avail_entry(std::size_t slot) { return kEntries + slot * sizeof(std::uint16_t); }
std::size_t used_entry(std::size_t slot) { return kEntries + slot * sizeof(UsedElement); }

}  // namespace

SplitQueue::SplitQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts,
                       const RingAreas& areas)
    : VirtQueue{memory, setup, interrupts},
      descriptors_{areas.descriptors},
      avail_{areas.driver},
      used_{areas.device},
      mask_{static_cast<std::uint16_t>(setup.size - 1)},
      event_index_{offers(kEventIndex)},
      in_flight_(setup.size) {}

/// Is there anything more in the available ring?
bool SplitQueue::look() noexcept {
  // Pairs with the driver's release (its barrier before avail->idx): ring slots and descriptors are filled.
  seen_avail_ = avail_.load(kIndex, std::memory_order_acquire);
  const auto waiting = static_cast<std::uint16_t>(seen_avail_ - next_avail_);
  if (waiting > setup_.size) {
    latch();
    return false;
  }
  return waiting != 0;
}

/// Asks for a notification of the next request; true when that came too late because it is here.
bool SplitQueue::arm() noexcept {
  if (event_index_) {
    used_.store(used_entry(setup_.size), next_avail_, std::memory_order_relaxed);
  } else {
    used_.store(kFlags, 0, std::memory_order_relaxed);
  }
  // Pairs with the driver's full barrier between avail->idx and its look at what we have just written: one of
  // the two sees the other's.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return look();
}

std::optional<DescriptorChain> SplitQueue::pop() noexcept {
  std::optional<DescriptorChain> chain;
  // No more than a ring full of malformed chains in one go: those descriptors are free again at once, and a
  // driver on another CPU could submit them for ever.
  for (std::uint32_t chains = 0; !broken_ && chains < setup_.size; ++chains) {
    const bool waits = next_avail_ != seen_avail_ || look() || (event_index_ && notifications_ && !broken_ && arm());
    if (!waits) {
      break;
    }
    const std::uint16_t head = avail_.load(avail_entry(next_avail_ & mask_), std::memory_order_relaxed);
    if (head >= setup_.size || in_flight_[head] != 0) {
      latch();
      break;
    }
    ++next_avail_;
    in_flight_[head] = 1;
    chain.emplace(*this, DescriptorChain::Key{});
    chain->id_ = head;
    if (follow(*chain, head)) {
      return chain;
    }
    chain.reset();  // goes back with length 0
    refused_ = true;
  }
  if (refused_) {
    notify();
  }
  return chain;
}

bool SplitQueue::follow(DescriptorChain& chain, std::uint16_t head) const noexcept {
  std::uint16_t index = head;
  for (std::size_t left = setup_.size; left > 0; --left) {
    const auto descriptor = descriptors_.copy<SplitDescriptor>(index * sizeof(SplitDescriptor));
    if ((descriptor.flags & kIndirect) != 0) {  // may end a chain, §2.7.5.3.2; its kWrite means nothing
      const auto table = indirect_table(descriptor.addr, descriptor.len, left);
      return (descriptor.flags & kNext) == 0 && table && follow_table(chain, *table);
    }
    if (!add(chain, descriptor.addr, descriptor.len, descriptor.flags)) {
      return false;
    }
    if ((descriptor.flags & kNext) == 0) {
      return true;
    }
    index = descriptor.next;
    if (index >= setup_.size) {
      return false;
    }
  }
  return false;  // a loop, or longer than the queue: the same to us
}

bool SplitQueue::follow_table(DescriptorChain& chain, std::span<const std::byte> table) const noexcept {
  const std::size_t count = table.size() / sizeof(SplitDescriptor);
  std::size_t index = 0;
  for (std::size_t left = count; left > 0; --left) {
    SplitDescriptor descriptor{};  // a copy, because the guest may change it
    std::memcpy(&descriptor, table.data() + index * sizeof(descriptor), sizeof(descriptor));
    if ((descriptor.flags & kIndirect) != 0 || !add(chain, descriptor.addr, descriptor.len, descriptor.flags)) {
      return false;
    }
    if ((descriptor.flags & kNext) == 0) {
      return true;
    }
    index = descriptor.next;
    if (index >= count) {
      return false;
    }
  }
  return false;
}

void SplitQueue::put_used(DescriptorChain& chain, std::uint32_t written) noexcept {
  if (chain.queue_ != this) {
    return;
  }
  used_.put(used_entry(next_used_ & mask_),
            UsedElement{.id = chain.id_, .len = std::min(written, chain.writable_bytes_)});
  ++next_used_;
  in_flight_[chain.id_] = 0;
  unnotified_ = std::min(unnotified_ + 1, 65536U);
  chain.retire();
}

void SplitQueue::publish_used() noexcept {
  // Pairs with the driver's acquire (its barrier after used->idx): data and elements are there.
  used_.store(kIndex, next_used_, std::memory_order_release);
}

void SplitQueue::complete(DescriptorChain&& chain, std::uint32_t written) noexcept {
  put_used(chain, written);
  publish_used();
}

void SplitQueue::complete_together(std::span<Completion> completions) noexcept {
  for (auto& [chain, written] : completions) {
    put_used(chain, written);
  }
  publish_used();
}

void SplitQueue::notify() noexcept {
  refused_ = false;
  const auto completed = std::exchange(unnotified_, 0U);
  if (completed == 0) {
    return;
  }
  // Pairs with the driver's full barrier between asking for interrupts and its last look at used->idx.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  bool wanted = false;
  if (event_index_) {  // §2.7.7.2: is the event among those completed?
    const auto event = avail_.load(avail_entry(setup_.size), std::memory_order_relaxed);
    wanted = static_cast<std::uint16_t>(next_used_ - event - 1) < completed;
  } else {
    wanted = (avail_.load(kFlags, std::memory_order_relaxed) & kAvailNoInterrupt) == 0;
  }
  if (wanted) {
    interrupts_.queue_used(setup_.index);
  }
}

void SplitQueue::disable_notifications() noexcept {
  notifications_ = false;
  if (event_index_) {  // §2.7.10.1: the flag stays 0; the driver has long passed the event, for 65535 more
    used_.store(used_entry(setup_.size), static_cast<std::uint16_t>(next_avail_ - 1), std::memory_order_relaxed);
  } else {
    used_.store(kFlags, kUsedNoNotify, std::memory_order_relaxed);
  }
}

bool SplitQueue::enable_notifications() noexcept {
  notifications_ = true;
  return !broken_ && arm();
}

}  // namespace martlet::virtio
