#include "virtio/queue.h"

#include "check.h"

namespace guest::virtio {
namespace {

/// Orders what we wrote before what we read next: x86 does not, and without SSE2 there is no MFENCE.
void full_fence() { asm volatile("lock orl $0, (%%rsp)" : : : "cc", "memory"); }
/// Keeps the compiler's hands off; the processor orders reads with reads and writes with writes.
void fence() { asm volatile("" : : : "memory"); }

enum PackedEventFlags : u16 { kEventEnable = 0, kEventDisable = 1, kEventDescriptor = 2 };  // §2.8.14

/// Has the other side's event index been passed, going from `before` to `now`? §2.7.10
bool passes(u16 event, u16 now, u16 before) {
  return static_cast<u16>(now - event - 1) < static_cast<u16>(now - before);
}

}  // namespace

void Queue::set_up(Transport& transport, u16 index, u16 size, u16 vector, const RingOptions& options) {
  __builtin_memset(static_cast<void*>(&memory_), 0, sizeof memory_);
  transport_ = &transport;
  options_ = options;
  index_ = index;
  size_ = size;
  room_ = size;
  free_count_ = 0;
  for (u16 i = size; i > 0; --i) {
    free_[free_count_++] = static_cast<u16>(i - 1);
    in_flight_[i - 1] = false;
  }
  next_ = kicked_ = used_ = 0;
  wrap_ = used_wrap_ = true;
  want_no_interrupt();
  const bool packed = options.packed;
  transport.enable_queue(
      {.index = index,
       .size = size,
       .descriptors = reinterpret_cast<u64>(memory_.descriptors),
       .driver = packed ? reinterpret_cast<u64>(&memory_.driver_event) : reinterpret_cast<u64>(&memory_.available),
       .device = packed ? reinterpret_cast<u64>(&memory_.device_event) : reinterpret_cast<u64>(&memory_.used),
       .vector = vector});
}

u16 Queue::allocate() { return free_[--free_count_]; }
void Queue::release(u16 id) { free_[free_count_++] = id; }

u16 Queue::add(const Buffer* buffers, u32 count) {
  ++added;
  return options_.packed ? add_packed(buffers, count) : add_split(buffers, count);
}

void Queue::fill_indirect(u16 id, const Buffer* buffers, u32 count) {
  for (u32 i = 0; i < count; ++i) {
    auto& piece = memory_.indirect[id][i];
    piece.address = buffers[i].address;
    piece.size = buffers[i].size;
    if (options_.packed) {
      piece.tail[0] = 0;
      piece.tail[1] = buffers[i].flags;
    } else {
      piece.tail[0] = static_cast<u16>(buffers[i].flags | (i + 1 < count ? kNext : 0));
      piece.tail[1] = static_cast<u16>(i + 1 < count ? i + 1 : 0);
    }
  }
}

u16 Queue::add_split(const Buffer* buffers, u32 count) {
  const u16 head = allocate();
  in_flight_[head] = true;
  if (options_.indirect) {
    fill_indirect(head, buffers, count);
    taken_[head] = 1;
    memory_.descriptors[head] = {
        reinterpret_cast<u64>(memory_.indirect[head]), static_cast<u32>(count * sizeof(Descriptor)), {kIndirect, 0}};
  } else {
    taken_[head] = static_cast<u16>(count);
    u16 at = head;
    for (u32 i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      const u16 following = last ? u16{0} : allocate();
      chain_[at] = following;
      memory_.descriptors[at] = {
          buffers[i].address, buffers[i].size, {static_cast<u16>(buffers[i].flags | (last ? 0 : kNext)), following}};
      at = following;
    }
  }
  room_ = static_cast<u16>(room_ - taken_[head]);
  publish(head);
  return head;
}

void Queue::publish(u16 head) {
  memory_.available.ring[next_ % size_] = head;
  pretend(1);
}

u16 Queue::add_linked(const Buffer& buffer, u16 next) {
  const u16 head = allocate();
  in_flight_[head] = true;
  taken_[head] = 1;
  --room_;
  auto& descriptor = options_.indirect ? memory_.indirect[head][0] : memory_.descriptors[head];
  descriptor = {buffer.address, buffer.size, {static_cast<u16>(buffer.flags | kNext), next}};
  if (options_.indirect) {
    memory_.descriptors[head] = {reinterpret_cast<u64>(&descriptor), sizeof descriptor, {kIndirect, 0}};
  }
  ++added;
  publish(head);
  return head;
}

void Queue::break_ring() {
  ++added;
  if (options_.packed) {
    put_packed({0, 1, 0}, 0, kNext, false);
    ++kicked_;
  } else {
    pretend(static_cast<u16>(size_ + 1));
  }
}

/// As many more requests as `count`, whatever they be.
void Queue::pretend(u16 count) {
  next_ = static_cast<u16>(next_ + count);
  fence();
  memory_.available.index = next_;
}

void Queue::put_packed(const Buffer& buffer, u16 id, u16 flags, bool first) {
  auto& slot = memory_.descriptors[next_];
  const auto mark = static_cast<u16>(flags | (wrap_ ? kPackedAvail : kPackedUsed));
  slot.address = buffer.address;
  slot.size = buffer.size;
  slot.tail[0] = id;
  if (first) {
    first_flags_ = mark;
  } else {
    slot.tail[1] = mark;
  }
  if (++next_ == size_) {
    next_ = 0;
    wrap_ = !wrap_;
  }
}

u16 Queue::add_packed(const Buffer* buffers, u32 count) {
  const u16 id = allocate();
  in_flight_[id] = true;
  const u16 first = next_;
  if (options_.indirect) {
    fill_indirect(id, buffers, count);
    taken_[id] = 1;
    put_packed({reinterpret_cast<u64>(memory_.indirect[id]), static_cast<u32>(count * sizeof(Descriptor)), 0}, id,
               kIndirect, true);
  } else {
    taken_[id] = static_cast<u16>(count);
    for (u32 i = 0; i < count; ++i) {
      put_packed(buffers[i], id, static_cast<u16>(buffers[i].flags | (i + 1 < count ? kNext : 0)), i == 0);
    }
  }
  room_ = static_cast<u16>(room_ - taken_[id]);
  kicked_ = static_cast<u16>(kicked_ + taken_[id]);  // packed: slots since the last kick
  fence();
  const_cast<volatile u16&>(memory_.descriptors[first].tail[1]) = first_flags_;
  return id;
}

bool Queue::device_wants_kick() const {
  if (!options_.packed) {
    if (options_.event_index) {
      const auto event = static_cast<u16>(memory_.used.ring[size_].id);
      return passes(event, next_, kicked_);
    }
    return (memory_.used.flags & 1U) == 0;
  }
  const u16 flags = memory_.device_event.flags;
  if (flags != kEventDescriptor) {
    return flags == kEventEnable;
  }
  const u16 offset_wrap = memory_.device_event.offset_wrap;
  u16 event = offset_wrap & 0x7fffU;
  if (((offset_wrap >> 15U) != 0) != wrap_) {
    event = static_cast<u16>(event - size_);
  }
  return passes(event, next_, static_cast<u16>(next_ - kicked_));
}

void Queue::kick() {
  full_fence();
  if (device_wants_kick()) {
    ++kicks;
    transport_->notify(index_);
  }
  kicked_ = options_.packed ? u16{0} : next_;
}

bool Queue::has_used() const {
  if (!options_.packed) {
    return memory_.used.index != used_;
  }
  const u16 flags = const_cast<const volatile u16&>(memory_.descriptors[used_].tail[1]);
  const bool available = (flags & kPackedAvail) != 0;
  const bool used = (flags & kPackedUsed) != 0;
  return available == used && used == used_wrap_;
}

bool Queue::take(Used& used) {
  if (!has_used()) {
    return false;
  }
  fence();
  return options_.packed ? take_packed(used) : take_split(used);
}

bool Queue::take_split(Used& used) {
  const auto& element = memory_.used.ring[used_ % size_];
  const u32 id = element.id;
  used.written = element.size;
  ++used_;
  if (id >= size_ || !in_flight_[id]) {
    check_equal(id, ~0ULL, "a used request is none that is in flight");
    return false;
  }
  used.id = static_cast<u16>(id);
  in_flight_[id] = false;
  u16 at = used.id;
  for (u16 i = 0; i < taken_[used.id]; ++i) {
    const u16 following = chain_[at];
    release(at);
    at = following;
  }
  room_ = static_cast<u16>(room_ + taken_[used.id]);
  return true;
}

bool Queue::take_packed(Used& used) {
  const auto& slot = memory_.descriptors[used_];
  const u16 id = slot.tail[0];
  used.written = slot.size;
  if (id >= size_ || !in_flight_[id]) {
    check_equal(id, ~0ULL, "a used request is none that is in flight");
    used_ = static_cast<u16>(used_ + 1);
    return false;
  }
  used.id = id;
  in_flight_[id] = false;
  used_ = static_cast<u16>(used_ + taken_[id]);
  if (used_ >= size_) {
    used_ = static_cast<u16>(used_ - size_);
    used_wrap_ = !used_wrap_;
  }
  release(id);
  room_ = static_cast<u16>(room_ + taken_[id]);
  return true;
}

bool Queue::want_interrupt() {
  if (!options_.packed) {
    memory_.available.flags = 0;
    memory_.available.ring[size_] = used_;  // used_event
  } else if (options_.event_index) {
    memory_.driver_event.offset_wrap = static_cast<u16>(used_ | (used_wrap_ ? 0x8000U : 0U));
    fence();
    memory_.driver_event.flags = kEventDescriptor;
  } else {
    memory_.driver_event.flags = kEventEnable;
  }
  full_fence();
  return has_used();
}

void Queue::want_no_interrupt() {
  if (options_.packed) {
    memory_.driver_event.flags = kEventDisable;
  } else if (options_.event_index) {  // the flag means nothing then: an index that is long past
    memory_.available.ring[size_] = static_cast<u16>(used_ - 1);
  } else {
    memory_.available.flags = 1;
  }
}

}  // namespace guest::virtio
