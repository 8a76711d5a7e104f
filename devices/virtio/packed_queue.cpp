#include "devices/virtio/packed_queue.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace martlet::virtio {
namespace {

constexpr std::size_t kEventOffset = offsetof(PackedEvent, offset_wrap), kEventFlags = offsetof(PackedEvent, flags);
constexpr std::uint16_t kWrapBit = 1U << 15U;  // of PackedEvent::offset_wrap

std::size_t slot_at(std::uint16_t slot) { return slot * sizeof(PackedDescriptor); }
std::size_t flags_at(std::uint16_t slot) { return slot_at(slot) + offsetof(PackedDescriptor, flags); }

}  // namespace

PackedQueue::PackedQueue(const GuestMemory& memory, const QueueSetup& setup, DriverInterrupts& interrupts,
                         const RingAreas& areas)
    : VirtQueue{memory, setup, interrupts},
      ring_{areas.descriptors},
      driver_event_{areas.driver},
      device_event_{areas.device},
      event_index_{offers(kEventIndex)} {}

PackedQueue::Position PackedQueue::advanced(Position from, std::uint16_t slots) const noexcept {
  const unsigned slot = unsigned{from.slot} + slots;  // `slots` is at most the size
  if (slot < setup_.size) {
    return {static_cast<std::uint16_t>(slot), from.wrap};
  }
  return {static_cast<std::uint16_t>(slot - setup_.size), !from.wrap};
}

/// §2.8.1: a descriptor is available in the lap in which its avail bit equals, and its used bit does not.
bool PackedQueue::available(std::uint16_t flags, bool wrap) noexcept {
  return ((flags & kPackedAvail) != 0) == wrap && ((flags & kPackedUsed) != 0) != wrap;
}

/// Is there another chain? Its head is written last, so then all of it is there (§2.8.6).
bool PackedQueue::look() const noexcept {
  // Pairs with the driver's release of the head's flags: the chain's other descriptors and data are there.
  return available(ring_.load(flags_at(next_avail_.slot), std::memory_order_acquire), next_avail_.wrap);
}

/// Asks for a notification of the next request; true when that came too late because it is here.
bool PackedQueue::arm() noexcept {
  if (event_index_) {
    const auto wrap = next_avail_.wrap ? kWrapBit : std::uint16_t{0};
    device_event_.store(kEventOffset, next_avail_.slot | wrap, std::memory_order_relaxed);
    // Pairs with the driver's acquire of the flags: it must not find them with the event before.
    device_event_.store(kEventFlags, kEventAtDescriptor, std::memory_order_release);
  } else {
    device_event_.store(kEventFlags, kEventsEnabled, std::memory_order_relaxed);
  }
  // Pairs with the driver's full barrier between making a chain available and its look at what we have just
  // written: one of the two sees the other's.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return look();
}

std::optional<DescriptorChain> PackedQueue::pop() noexcept {
  std::optional<DescriptorChain> chain;
  // No more than a ring full of malformed chains in one go: those slots are free again at once, and a driver
  // on another CPU could fill them for ever.
  for (std::uint32_t slots = 0; !broken_ && slots < setup_.size;) {
    if (!look() && !(event_index_ && notifications_ && arm())) {
      break;
    }
    chain.emplace(*this, DescriptorChain::Key{});
    const auto walk = follow(*chain);
    if (walk == Walk::Endless) {
      chain->retire();  // there is no buffer id to give back
      chain.reset();
      latch();
      break;
    }
    next_avail_ = advanced(next_avail_, chain->slots_);
    in_flight_ = static_cast<std::uint16_t>(in_flight_ + chain->slots_);
    if (walk == Walk::Good) {
      return chain;
    }
    slots += chain->slots_;
    chain.reset();  // goes back with length 0
    refused_ = true;
  }
  if (refused_) {
    notify();
  }
  return chain;
}

/// Also a malformed chain is followed to its end: there are its id, and where the next one begins.
PackedQueue::Walk PackedQueue::follow(DescriptorChain& chain) const noexcept {
  auto walk = Walk::Good;
  Position at = next_avail_;
  const unsigned free = setup_.size - in_flight_;
  for (unsigned left = free; left > 0; --left, at = advanced(at, 1)) {
    const auto descriptor = ring_.copy<PackedDescriptor>(slot_at(at.slot));
    if (!available(descriptor.flags, at.wrap)) {
      return Walk::Endless;
    }
    const bool more = (descriptor.flags & kNext) != 0;
    if (walk == Walk::Good) {
      bool good = false;
      if ((descriptor.flags & kIndirect) != 0) {
        const auto table = indirect_table(descriptor.addr, descriptor.len, setup_.size - (free - left));
        good = !more && table && follow_table(chain, *table);
      } else {
        good = add(chain, descriptor.addr, descriptor.len, descriptor.flags);
      }
      walk = good ? Walk::Good : Walk::Malformed;
    }
    if (!more) {
      chain.id_ = descriptor.id;
      chain.slots_ = static_cast<std::uint16_t>(free - left + 1);
      return walk;
    }
  }
  return Walk::Endless;
}

bool PackedQueue::follow_table(DescriptorChain& chain, std::span<const std::byte> table) const noexcept {
  for (; !table.empty(); table = table.subspan(sizeof(PackedDescriptor))) {
    PackedDescriptor descriptor{};  // a copy, because the guest may change it
    std::memcpy(&descriptor, table.data(), sizeof(descriptor));
    // §2.8.7: kNext and the id mean nothing here, the table's length says it all.
    if ((descriptor.flags & kIndirect) != 0 || !add(chain, descriptor.addr, descriptor.len, descriptor.flags)) {
      return false;
    }
  }
  return true;
}

/// Writes a used descriptor all but its flags, without which the driver does not see it.
std::optional<PackedQueue::Flags> PackedQueue::put_used(DescriptorChain& chain, std::uint32_t written) noexcept {
  if (chain.queue_ != this) {
    return std::nullopt;
  }
  written = std::min(written, chain.writable_bytes_);
  const std::size_t slot = slot_at(next_used_.slot);
  ring_.put(slot + offsetof(PackedDescriptor, len), written);
  ring_.put(slot + offsetof(PackedDescriptor, id), chain.id_);
  Flags flags{.offset = flags_at(next_used_.slot)};
  if (next_used_.wrap) {
    flags.value = kPackedAvail | kPackedUsed;
  }
  if (written != 0) {
    flags.value |= kWrite;  // §2.8.4
  }
  next_used_ = advanced(next_used_, chain.slots_);
  in_flight_ = static_cast<std::uint16_t>(in_flight_ - chain.slots_);
  unnotified_ = std::min<std::uint32_t>(unnotified_ + chain.slots_, setup_.size);
  chain.retire();
  return flags;
}

void PackedQueue::complete(DescriptorChain&& chain, std::uint32_t written) noexcept {
  if (const auto flags = put_used(chain, written)) {
    // Pairs with the driver's acquire of the flags: data, length and id are there.
    ring_.store(flags->offset, flags->value, std::memory_order_release);
  }
}

void PackedQueue::complete_together(std::span<Completion> completions) noexcept {
  std::optional<Flags> first;
  for (auto& [chain, written] : completions) {
    const auto flags = put_used(chain, written);
    if (!first) {
      first = flags;
    } else if (flags) {
      ring_.store(flags->offset, flags->value, std::memory_order_relaxed);
    }
  }
  if (first) {
    // Pairs with the driver's acquire of the flags: the driver goes in order, and so finds all or none.
    ring_.store(first->offset, first->value, std::memory_order_release);
  }
}

void PackedQueue::notify() noexcept {
  refused_ = false;
  const auto completed = std::exchange(unnotified_, 0U);
  if (completed == 0) {
    return;
  }
  // Pairs with the driver's full barrier between asking for interrupts and its last look at the ring.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  // Pairs with the driver's release of the flags: the event is the one that they speak of.
  const auto flags = driver_event_.load(kEventFlags, std::memory_order_acquire);
  bool wanted = flags != kEventsDisabled;
  if (flags == kEventAtDescriptor && event_index_ && completed < setup_.size) {
    const auto event = driver_event_.load(kEventOffset, std::memory_order_relaxed);
    const bool this_lap = ((event & kWrapBit) != 0) == next_used_.wrap;
    const unsigned offset = (event & ~unsigned{kWrapBit}) - (this_lap ? 0U : setup_.size);
    wanted = static_cast<std::uint16_t>(next_used_.slot - offset - 1) < completed;
  }
  if (wanted) {
    interrupts_.queue_used(setup_.index);
  }
}

void PackedQueue::disable_notifications() noexcept {
  notifications_ = false;
  device_event_.store(kEventFlags, kEventsDisabled, std::memory_order_relaxed);
}

bool PackedQueue::enable_notifications() noexcept {
  notifications_ = true;
  return !broken_ && arm();
}

}  // namespace martlet::virtio
