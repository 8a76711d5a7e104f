#pragma once
// The driver's side of a virtqueue: split (virtio 1.2 §2.7) or packed (§2.8), chosen when it is set up.

#include "virtio/transport.h"

namespace guest::virtio {

/// A piece of a request, one descriptor.
struct Buffer {
  u64 address;
  u32 size;
  u16 flags;  // kWrite; more of them only from who means to be malformed
};
inline Buffer readable(const void* at, u32 size) { return {reinterpret_cast<u64>(at), size, 0}; }
inline Buffer writable(void* at, u32 size) { return {reinterpret_cast<u64>(at), size, kWrite}; }

struct Used {
  u16 id = 0;       ///< what add() returned
  u32 written = 0;  ///< bytes, as the device says
};

/// How requests are laid out and who is told what: what was negotiated, and what was asked for.
struct RingOptions {
  bool packed = false;
  bool indirect = false;
  bool event_index = false;
};

class Queue {
 public:
  static constexpr u16 kMostDescriptors = 64;
  static constexpr u32 kMostPieces = 16;  // of one request

  /// Empty, its rings at new values, and enabled at the device.
  void set_up(Transport& transport, u16 index, u16 size, u16 vector, const RingOptions& options);

  [[nodiscard]] u16 index() const { return index_; }
  [[nodiscard]] u16 size() const { return size_; }
  /// Descriptors that are free.
  [[nodiscard]] u16 room() const { return room_; }

  /// Makes a request available, not yet told. The caller knows that there is room for it.
  template <u32 Count>
  u16 add(const Buffer (&buffers)[Count]) {
    return add(buffers, Count);
  }
  u16 add(const Buffer* buffers, u32 count);
  /// Tells the device of what was added, if it wants to know.
  void kick();
  /// Takes one used request off the ring.
  bool take(Used& used);
  [[nodiscard]] bool has_used() const;

  /// From now on an interrupt for the next used buffer. True when one is there already.
  bool want_interrupt();
  void want_no_interrupt();

  // For who means to be malformed, split rings only.
  /// A request of one descriptor, in the ring or in an indirect table, which says that number `next` follows.
  u16 add_linked(const Buffer& buffer, u16 next);
  /// Its own number, if it is the next request.
  [[nodiscard]] u16 itself() const { return options_.indirect ? u16{0} : free_[free_count_ - 1]; }
  // And both: from now on nobody can follow it. Split: more requests than there are descriptors; packed: one that
  // does not end.
  void break_ring();

  u32 added = 0;  // requests
  u32 kicks = 0;  // notifications sent

 private:
  struct PackedEvent {
    volatile u16 offset_wrap;
    volatile u16 flags;
  };
  struct UsedElement {
    volatile u32 id;
    volatile u32 size;
  };
  struct Memory {
    alignas(16) Descriptor descriptors[kMostDescriptors];
    alignas(16) Descriptor indirect[kMostDescriptors][kMostPieces];
    alignas(4) struct {
      volatile u16 flags;
      volatile u16 index;
      volatile u16 ring[kMostDescriptors + 1];  // the last one in use is used_event
    } available;
    alignas(4) struct {
      volatile u16 flags;
      volatile u16 index;
      UsedElement ring[kMostDescriptors + 1];  // the last one in use is avail_event
    } used;
    alignas(4) PackedEvent driver_event;
    alignas(4) PackedEvent device_event;
  };

  void publish(u16 head);
  void pretend(u16 count);
  u16 add_split(const Buffer* buffers, u32 count);
  u16 add_packed(const Buffer* buffers, u32 count);
  void put_packed(const Buffer& buffer, u16 id, u16 flags, bool first);
  void fill_indirect(u16 id, const Buffer* buffers, u32 count);
  bool take_split(Used& used);
  bool take_packed(Used& used);
  [[nodiscard]] bool device_wants_kick() const;
  u16 allocate();
  void release(u16 id);

  Memory memory_;
  Transport* transport_ = nullptr;
  RingOptions options_;
  u16 index_ = 0;
  u16 size_ = 0;
  u16 room_ = 0;
  u16 free_count_ = 0;
  u16 free_[kMostDescriptors];   // a stack of descriptors (split) or buffer ids (packed)
  u16 taken_[kMostDescriptors];  // by request: how many descriptors it has
  u16 chain_[kMostDescriptors];  // split: what follows which
  bool in_flight_[kMostDescriptors];
  u16 next_ = 0;  // split: available index; packed: slot
  u16 kicked_ = 0;
  u16 used_ = 0;
  bool wrap_ = false;  // packed: of next_, and of used_
  bool used_wrap_ = false;
  u16 first_flags_ = 0;  // packed: the first descriptor's, written last
};

}  // namespace guest::virtio
