#include "virtio_driver.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace martlet::virtio {
namespace {

// Areas within the rings, virtio 1.2 §2.7.6 and §2.7.8.
constexpr std::uint64_t kRingFlags = 0, kRingIndex = 2, kRingEntries = 4;
constexpr std::uint64_t kEventFlags = 2;  // within PackedEvent
constexpr auto kUntouched = std::byte{0xcc};
// Where the specification says that the device ignores a field, it shall find rubbish.
constexpr std::uint16_t kRubbish = 0xeeee;

constexpr std::array<GuestRange, 2> kRam{
    {{GuestAddr{0}, FakeDriver::kLowRam}, {GuestAddr{FakeDriver::kHighRam}, FakeDriver::kHighRamSize}}};

template <class Flag>
constexpr std::uint64_t flag_if(bool condition, Flag flag) {
  return condition ? static_cast<std::uint64_t>(flag) : 0;
}

std::uint64_t used_entry(std::uint16_t slot) { return kRingEntries + slot * sizeof(UsedElement); }
std::uint64_t avail_entry(std::uint16_t slot) { return kRingEntries + slot * std::uint64_t{2}; }

}  // namespace

FakeDriver::FakeDriver(Options options) : options_{options}, memory_{kRam, GuestMemory::Backing::Memfd} {
  options_.features |= kVersion1 | flag_if(packed(), kRingPacked);
  for (std::uint16_t i = 0; i < options_.queues; ++i) {
    auto& queue = *queues_.emplace_back(std::make_unique<Queue>());
    queue.setup = {.index = i, .size = options_.size, .features = options_.features};
    lay_out(queue);
    reset(queue);
  }
}

FakeDriver::~FakeDriver() = default;

void FakeDriver::require(bool condition, const char* what) {
  if (!condition) {
    throw std::runtime_error{what};
  }
}

template <class T>
std::atomic_ref<T> FakeDriver::word(GuestAddr addr) const {
  const auto bytes = memory_.slice(addr, sizeof(T));
  require(bytes.has_value(), "ring outside of guest memory");
  return std::atomic_ref<T>{*reinterpret_cast<T*>(bytes->data())};
}

void FakeDriver::lay_out(Queue& queue) {
  const std::uint64_t size = options_.size;
  queue.setup.descriptors = allocate(size * sizeof(SplitDescriptor));
  queue.setup.driver = allocate(packed() ? sizeof(PackedEvent) : avail_entry(options_.size) + 2);
  queue.setup.device = allocate(packed() ? sizeof(PackedEvent) : used_entry(options_.size) + 2);
}

void FakeDriver::reset(Queue& queue) {
  for (const auto area : {queue.setup.descriptors, queue.setup.driver, queue.setup.device}) {
    std::ranges::fill(*memory_.slice(area, heap_.size_of(area)), std::byte{0});
  }
  for (const auto& [id, sent] : queue.sent) {
    for (const auto addr : sent.owned) {
      release(addr);
    }
  }
  queue.sent.clear();
  queue.free.clear();
  for (std::uint16_t i = options_.size; i > 0; --i) {
    queue.free.push_back(static_cast<std::uint16_t>(i - 1));  // taken from the end: 0 first
  }
  queue.free_slots = options_.size;
  queue.next_avail = queue.last_used = queue.added = 0;
  queue.avail_wrap = queue.used_wrap = true;
  queue.wanted = Interrupts::Always;
  arm(queue, 1);
}

const QueueSetup& FakeDriver::setup(std::uint16_t queue) const { return at(queue).setup; }

std::unique_ptr<VirtQueue> FakeDriver::make_queue(std::uint16_t queue) {
  reset(at(queue));
  auto made = VirtQueue::make(memory_, at(queue).setup, *this);
  require(made != nullptr, "VirtQueue::make refused good rings");
  return made;
}

// --- Requests

FakeDriver::Chain::~Chain() {
  for (const auto addr : owned_) {
    driver_.release(addr);
  }
}

FakeDriver::Chain& FakeDriver::Chain::readable(std::span<const std::byte> bytes) {
  const auto addr = owned_.emplace_back(driver_.allocate(bytes.size(), 1));
  std::ranges::copy(bytes, driver_.memory_.slice(addr, bytes.size())->begin());
  return raw({.addr = martlet::raw(addr), .len = static_cast<std::uint32_t>(bytes.size())});
}

FakeDriver::Chain& FakeDriver::Chain::writable(std::uint32_t bytes) {
  const auto addr = owned_.emplace_back(driver_.allocate(bytes, 1));
  std::ranges::fill(writable_.emplace_back(*driver_.memory_.slice(addr, bytes)), kUntouched);
  return raw({.addr = martlet::raw(addr), .len = bytes, .flags = kWrite});
}

FakeDriver::Chain& FakeDriver::Chain::raw(const RawDescriptor& descriptor) {
  descriptors_.push_back(descriptor);
  return *this;
}

FakeDriver::Chain& FakeDriver::Chain::indirect() {
  indirect_ = true;
  return *this;
}

FakeDriver::Chain& FakeDriver::Chain::table_bytes(std::uint32_t bytes) {
  table_bytes_ = bytes;
  return indirect();
}

FakeDriver::Chain& FakeDriver::Chain::table_flags(std::uint16_t flags) {
  table_flags_ = flags;
  return indirect();
}

FakeDriver::Chain& FakeDriver::Chain::id(std::uint16_t id) {
  id_ = id;
  return *this;
}

std::uint16_t FakeDriver::Chain::submit() { return driver_.submit(*this); }

std::uint16_t FakeDriver::submit(Chain& chain) {
  if (chain.indirect_) {
    put_table(chain);
  }
  auto& queue = at(chain.queue_);
  Sent sent{.owned = chain.owned_, .writable = chain.writable_};
  const auto id = packed() ? put_packed(queue, chain.descriptors_, chain.id_, std::move(sent))
                           : put_split(queue, chain.descriptors_, std::move(sent));
  chain.owned_.clear();  // the driver's now; the chain's still if there was no room
  return id;
}

void FakeDriver::put_table(Chain& chain) {
  const auto count = chain.descriptors_.size();
  const auto table = chain.owned_.emplace_back(allocate(count * sizeof(SplitDescriptor)));
  for (std::size_t i = 0; i < count; ++i) {
    const auto& from = chain.descriptors_[i];
    const auto to = table + i * sizeof(SplitDescriptor);
    if (packed()) {  // §2.8.7: only kWrite counts in a table
      write(to, PackedDescriptor{.addr = from.addr, .len = from.len, .id = kRubbish, .flags = from.flags});
    } else {
      const bool more = from.next || i + 1 < count;
      write(to, SplitDescriptor{.addr = from.addr,
                                .len = from.len,
                                .flags = static_cast<std::uint16_t>(from.flags | flag_if(more, kNext)),
                                .next = more ? from.next.value_or(static_cast<std::uint16_t>(i + 1)) : kRubbish});
    }
  }
  const auto length = static_cast<std::uint32_t>(count * sizeof(SplitDescriptor));
  chain.descriptors_ = {{.addr = raw(table),
                         .len = chain.table_bytes_.value_or(length),
                         .flags = static_cast<std::uint16_t>(kIndirect | chain.table_flags_)}};
}

std::uint16_t FakeDriver::put_split(Queue& queue, std::span<const RawDescriptor> descriptors, Sent sent) {
  require(!descriptors.empty() && descriptors.size() <= queue.free.size(), "no room in the ring");
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    sent.taken.push_back(queue.free.back());
    queue.free.pop_back();
  }
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    const auto& from = descriptors[i];
    const bool last = i + 1 == descriptors.size();
    const bool more = from.next || !last;
    write(queue.setup.descriptors + sent.taken[i] * sizeof(SplitDescriptor),
          SplitDescriptor{.addr = from.addr,
                          .len = from.len,
                          .flags = static_cast<std::uint16_t>(from.flags | flag_if(more, kNext)),
                          .next = from.next.value_or(last ? kRubbish : sent.taken[i + 1])});
  }
  const std::uint16_t head = sent.taken.front();
  queue.sent.emplace(head, std::move(sent));
  publish_head(queue, head);
  return head;
}

void FakeDriver::publish_head(Queue& queue, std::uint16_t head) {
  const auto slot = static_cast<std::uint16_t>(queue.next_avail % options_.size);
  word<std::uint16_t>(queue.setup.driver + avail_entry(slot)).store(head, std::memory_order_relaxed);
  ++queue.added;
  // Pairs with the device's acquire of avail->idx: it must see the slot and the descriptors.
  word<std::uint16_t>(queue.setup.driver + kRingIndex).store(++queue.next_avail, std::memory_order_release);
}

std::uint16_t FakeDriver::put_packed(Queue& queue, std::span<const RawDescriptor> descriptors,
                                     std::optional<std::uint16_t> id, Sent sent) {
  require(!descriptors.empty() && descriptors.size() <= queue.free_slots && (id || !queue.free.empty()),
          "no room in the ring");
  if (!id) {
    id = sent.taken.emplace_back(queue.free.back());
    queue.free.pop_back();
  }
  sent.slots = static_cast<std::uint16_t>(descriptors.size());
  const auto head = queue.setup.descriptors + queue.next_avail * sizeof(PackedDescriptor);
  std::uint16_t head_flags = 0;
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    const auto& from = descriptors[i];
    const bool last = i + 1 == descriptors.size();
    const std::uint16_t avail = queue.avail_wrap ? kPackedAvail : kPackedUsed;
    const auto flags = static_cast<std::uint16_t>(from.flags | avail | flag_if(!last, kNext));
    const auto addr = queue.setup.descriptors + queue.next_avail * sizeof(PackedDescriptor);
    const PackedDescriptor descriptor{
        .addr = from.addr, .len = from.len, .id = last ? *id : kRubbish, .flags = i == 0 ? std::uint16_t{0} : flags};
    if (i == 0) {  // its flags come last, and until then are those of what stood there
      head_flags = flags;
      require(memory_.write(addr, std::as_bytes(std::span{&descriptor, 1}).first(offsetof(PackedDescriptor, flags))),
              "ring outside of guest memory");
    } else {
      write(addr, descriptor);
    }
    if (++queue.next_avail == options_.size) {
      queue.next_avail = 0;
      queue.avail_wrap = !queue.avail_wrap;
    }
  }
  queue.added = static_cast<std::uint16_t>(queue.added + sent.slots);
  queue.free_slots = static_cast<std::uint16_t>(queue.free_slots - sent.slots);
  queue.sent.emplace(*id, std::move(sent));
  // Pairs with the device's acquire of the flags: it must see the whole chain.
  word<std::uint16_t>(head + offsetof(PackedDescriptor, flags)).store(head_flags, std::memory_order_release);
  return *id;
}

std::vector<std::byte> FakeDriver::Used::bytes() const {
  std::vector<std::byte> all;
  for (const auto& buffer : data) {
    const auto count = std::min<std::size_t>(buffer.size(), written - all.size());
    all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(count));
  }
  return all;
}

std::string FakeDriver::Used::text() const {
  const auto all = bytes();
  return {reinterpret_cast<const char*>(all.data()), all.size()};
}

std::optional<UsedElement> FakeDriver::next_used(Queue& queue) {
  if (!packed()) {
    // Pairs with the device's release of used->idx: the element and the data are there.
    if (word<std::uint16_t>(queue.setup.device + kRingIndex).load(std::memory_order_acquire) == queue.last_used) {
      return std::nullopt;
    }
    return read<UsedElement>(queue.setup.device + used_entry(queue.last_used % options_.size));
  }
  const auto slot = queue.setup.descriptors + queue.last_used * sizeof(PackedDescriptor);
  // Pairs with the device's release of the used descriptor's flags.
  const auto flags = word<std::uint16_t>(slot + offsetof(PackedDescriptor, flags)).load(std::memory_order_acquire);
  if (((flags & kPackedAvail) != 0) != queue.used_wrap || ((flags & kPackedUsed) != 0) != queue.used_wrap) {
    return std::nullopt;
  }
  const auto used = read<PackedDescriptor>(slot);
  // §2.8.13: without kWrite the length is reserved.
  return UsedElement{.id = used.id, .len = (flags & kWrite) != 0 ? used.len : 0};
}

std::optional<FakeDriver::Used> FakeDriver::take_used(std::uint16_t index) {
  auto& queue = at(index);
  const auto element = next_used(queue);
  if (!element) {
    return std::nullopt;
  }
  const auto found =
      element->id <= 0xffff ? queue.sent.find(static_cast<std::uint16_t>(element->id)) : queue.sent.end();
  require(found != queue.sent.end(), "the device used what is not in flight");
  Used used{.id = found->first, .written = element->len};
  auto sent = std::move(found->second);
  queue.sent.erase(found);
  for (const auto buffer : sent.writable) {
    used.data.emplace_back(buffer.begin(), buffer.end());
  }
  for (const auto addr : sent.owned) {
    release(addr);
  }
  queue.free.insert(queue.free.end(), sent.taken.rbegin(), sent.taken.rend());
  if (packed()) {
    queue.free_slots = static_cast<std::uint16_t>(queue.free_slots + sent.slots);
    queue.last_used = static_cast<std::uint16_t>(queue.last_used + sent.slots);
    if (queue.last_used >= options_.size) {
      queue.last_used = static_cast<std::uint16_t>(queue.last_used - options_.size);
      queue.used_wrap = !queue.used_wrap;
    }
  } else {
    ++queue.last_used;
  }
  if (queue.wanted == Interrupts::Always) {
    arm(queue, 1);
  }
  return used;
}

std::size_t FakeDriver::in_flight(std::uint16_t queue) const { return at(queue).sent.size(); }

std::size_t FakeDriver::free_descriptors(std::uint16_t queue) const {
  return packed() ? at(queue).free_slots : at(queue).free.size();
}

// --- Notifications

unsigned FakeDriver::interrupts(std::uint16_t queue) const { return at(queue).interrupts; }

void FakeDriver::queue_used(std::uint16_t queue) noexcept {
  if (queue < queues_.size()) {
    ++queues_[queue]->interrupts;
  }
}

void FakeDriver::want_interrupts(std::uint16_t queue) {
  at(queue).wanted = Interrupts::Always;
  arm(at(queue), 1);
}

void FakeDriver::no_interrupts(std::uint16_t index) {
  auto& queue = at(index);
  queue.wanted = Interrupts::Never;
  if (packed()) {
    word<std::uint16_t>(queue.setup.driver + kEventFlags).store(kEventsDisabled);
  } else if (event_index()) {
    arm(queue, 0);  // what has been used already is never reached again
  } else {
    word<std::uint16_t>(queue.setup.driver + kRingFlags).store(kAvailNoInterrupt);
  }
}

void FakeDriver::interrupt_after(std::uint16_t descriptors, std::uint16_t queue) {
  require(event_index(), "interrupt_after() needs kEventIndex");
  at(queue).wanted = Interrupts::Once;
  arm(at(queue), descriptors);
}

/// Tells the device to interrupt when `ahead` more descriptors are used.
void FakeDriver::arm(Queue& queue, std::uint16_t ahead) {
  if (!packed()) {
    if (event_index()) {
      word<std::uint16_t>(queue.setup.driver + avail_entry(options_.size))
          .store(static_cast<std::uint16_t>(queue.last_used + ahead - 1));
    } else {
      word<std::uint16_t>(queue.setup.driver + kRingFlags).store(0);
    }
    return;
  }
  if (event_index()) {
    const unsigned position = queue.last_used + ahead - 1U;
    const bool wraps = position >= options_.size;
    const unsigned offset = wraps ? position - options_.size : position;
    word<std::uint16_t>(queue.setup.driver)
        .store(static_cast<std::uint16_t>(offset | (queue.used_wrap != wraps ? 0x8000U : 0U)));
  }
  word<std::uint16_t>(queue.setup.driver + kEventFlags).store(event_index() ? kEventAtDescriptor : kEventsEnabled);
}

bool FakeDriver::kick_wanted(std::uint16_t index) {
  auto& queue = at(index);
  const std::uint16_t added = std::exchange(queue.added, std::uint16_t{0});
  // Pairs with the device's fence between asking for notifications and looking again.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto passed = [&](unsigned event) {
    return static_cast<std::uint16_t>(queue.next_avail - event - 1) < added;  // §2.7.10.1
  };
  if (!packed()) {
    return event_index() ? passed(word<std::uint16_t>(queue.setup.device + used_entry(options_.size)).load())
                         : added != 0 && word<std::uint16_t>(queue.setup.device + kRingFlags).load() != kUsedNoNotify;
  }
  const auto flags = word<std::uint16_t>(queue.setup.device + kEventFlags).load();
  if (flags != kEventAtDescriptor) {
    return added != 0 && flags != kEventsDisabled;
  }
  const auto event = word<std::uint16_t>(queue.setup.device).load();
  const bool same_lap = ((event & 0x8000U) != 0) == queue.avail_wrap;
  return passed((event & 0x7fffU) - (same_lap ? 0U : options_.size));
}

// --- Hostile

std::uint16_t FakeDriver::next_head(std::uint16_t queue) const { return at(queue).free.back(); }

void FakeDriver::push_head(std::uint16_t head, std::uint16_t queue) { publish_head(at(queue), head); }

void FakeDriver::set_avail_index(std::uint16_t index, std::uint16_t queue) {
  at(queue).next_avail = index;
  word<std::uint16_t>(at(queue).setup.driver + kRingIndex).store(index, std::memory_order_release);
}

std::uint16_t FakeDriver::avail_index(std::uint16_t queue) const { return at(queue).next_avail; }

}  // namespace martlet::virtio
