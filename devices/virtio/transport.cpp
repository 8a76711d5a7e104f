#include "devices/virtio/transport.h"

#include <sys/epoll.h>

#include <utility>

namespace martlet::virtio {
namespace {

// What a transport and its rings can do, whatever the device (§6).
constexpr std::uint64_t kOurFeatures = kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked | kRingReset;
// What a driver may set; DEVICE_NEEDS_RESET is the device's to say (§2.1).
constexpr std::uint8_t kDriversBits = kAcknowledge | kDriver | kDriverOk | kFeaturesOk | kFailed;

// Edge-triggered: each signal is an edge, so a kick's counter need not be read.
constexpr std::uint32_t kKicks = std::uint32_t{EPOLLIN} | std::uint32_t{EPOLLET};

constexpr unsigned kWordBits = 32;
constexpr std::uint64_t kWord = 0xffff'ffff;

constexpr std::uint32_t word_of(std::uint64_t value, std::uint32_t word) {
  return word < 2 ? static_cast<std::uint32_t>(value >> (word * kWordBits) & kWord) : 0;
}

constexpr void set_word(std::uint64_t& value, std::uint32_t word, std::uint32_t bits) {
  if (word < 2) {
    const unsigned shift = word * kWordBits;
    value = (value & ~(kWord << shift)) | std::uint64_t{bits} << shift;
  }
}

void reset_registers(DeviceState::Queue& queue) {
  queue.size = queue.max_size;
  queue.enabled = false;
  queue.descriptors = queue.driver = queue.device = 0;
}

}  // namespace

DeviceState::DeviceState(Unwatched /*tag*/, VirtioDevice& device, const GuestMemory& memory, EventLoop& loop,
                         DriverInterrupts& interrupts)
    : device_{device},
      memory_{memory},
      loop_{loop},
      interrupts_{interrupts},
      offered_{device.features() | (kOurFeatures & ~device.refused_ring_features())},
      queues_(device.queue_sizes().size()),
      served_(queues_.size(), Served::NotAtAll) {
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    queues_[i].max_size = device.queue_sizes()[i];
    reset_registers(queues_[i]);
  }
}

// Two constructors, so that the destructor undoes the first watches when a later one throws.
DeviceState::DeviceState(VirtioDevice& device, const GuestMemory& memory, EventLoop& loop, DriverInterrupts& interrupts)
    : DeviceState{Unwatched{}, device, memory, loop, interrupts} {
  for (std::uint16_t i = 0; i < queue_count(); ++i) {
    loop_.watch(queues_[i].kick.get(), kKicks, [this, i](std::uint32_t) { kicked(i); });
  }
}

DeviceState::~DeviceState() {
  loop_.call([this] {
    stop();
    for (const auto& queue : queues_) {
      loop_.unwatch(queue.kick.get());
    }
  });
}

void DeviceState::write_status(std::uint8_t value) {
  if (value == 0) {
    reset();
    return;
  }
  auto wanted = static_cast<std::uint8_t>(value & kDriversBits & ~status());
  const bool acceptable = (accepted_ & ~offered_) == 0 && (accepted_ & kVersion1) != 0;
  if ((wanted & kFeaturesOk) != 0 && !acceptable) {
    wanted = static_cast<std::uint8_t>(wanted & ~kFeaturesOk);
  }
  if ((wanted & kDriverOk) != 0 && ((status() | wanted) & kFeaturesOk) == 0) {
    wanted = static_cast<std::uint8_t>(wanted & ~kDriverOk);
  }
  status_.fetch_or(wanted, std::memory_order_acq_rel);
  if ((wanted & kDriverOk) != 0) {
    loop_.call([this] { start(); });
  }
}

bool DeviceState::set_needs_reset() noexcept {
  return (status_.fetch_or(kNeedsReset, std::memory_order_acq_rel) & kNeedsReset) == 0;
}

std::uint32_t DeviceState::offered_features(std::uint32_t select) const noexcept { return word_of(offered_, select); }

std::uint32_t DeviceState::accepted_features(std::uint32_t select) const noexcept { return word_of(accepted_, select); }

void DeviceState::accept_features(std::uint32_t select, std::uint32_t bits) noexcept {
  if (!has(kFeaturesOk)) {
    set_word(accepted_, select, bits);
  }
}

const DeviceState::Queue* DeviceState::queue(std::uint32_t index) const noexcept {
  return index < queues_.size() ? &queues_[index] : nullptr;
}

/// The queue, if there is one whose registers may be written.
DeviceState::Queue* DeviceState::changeable(std::uint32_t index) noexcept {
  return index < queues_.size() && !queues_[index].enabled ? &queues_[index] : nullptr;
}

void DeviceState::set_queue_size(std::uint32_t index, std::uint16_t size) noexcept {
  if (auto* const queue = changeable(index)) {
    queue->size = size;
  }
}

void DeviceState::set_queue_address(std::uint32_t index, Area area, unsigned word, std::uint32_t value) noexcept {
  if (auto* const queue = changeable(index)) {
    auto& address = area == Area::Descriptors ? queue->descriptors
                    : area == Area::Driver    ? queue->driver
                                              : queue->device;
    set_word(address, word, value);
  }
}

void DeviceState::enable_queue(std::uint32_t index) {
  auto* const queue = changeable(index);
  if (queue == nullptr) {
    return;
  }
  queue->enabled = true;
  if (has(kDriverOk)) {
    loop_.call([this, index] { start_queue(static_cast<std::uint16_t>(index)); });
  }
}

void DeviceState::disable_queue(std::uint32_t index) {
  if (index >= queues_.size() || !queues_[index].enabled) {
    return;
  }
  loop_.call([this, index] { stop_queue(static_cast<std::uint16_t>(index)); });
  queues_[index].enabled = false;
}

void DeviceState::reset_queue(std::uint32_t index) {
  if (index < queues_.size() && has(kFeaturesOk) && (accepted_ & kRingReset) != 0) {
    disable_queue(index);
    reset_registers(queues_[index]);
  }
}

void DeviceState::reset() {
  loop_.call([this] {
    stop();
    status_.store(0, std::memory_order_release);  // here: nothing on the loop can set NEEDS_RESET afterwards
  });
  accepted_ = 0;
  for (auto& queue : queues_) {
    reset_registers(queue);
  }
}

void DeviceState::start() {
  device_.start(accepted_, interrupts_);
  for (std::uint16_t i = 0; i < queue_count(); ++i) {
    if (queues_[i].enabled) {
      start_queue(i);
    }
  }
}

void DeviceState::start_queue(std::uint16_t index) {
  const auto& registers = queues_[index];
  const QueueSetup setup{.index = index,
                         .size = registers.size,
                         .descriptors = GuestAddr{registers.descriptors},
                         .driver = GuestAddr{registers.driver},
                         .device = GuestAddr{registers.device},
                         .features = accepted_};
  auto ring = setup.size <= registers.max_size ? VirtQueue::make(memory_, setup, interrupts_) : nullptr;
  if (ring == nullptr) {
    interrupts_.needs_reset();
    return;
  }
  device_.start_queue(index, std::move(ring), registers.kick.get());
  serve(index, device_.serves_itself(index) ? Served::ByItself : Served::ByNotification);
}

void DeviceState::stop_queue(std::uint16_t index) {
  if (served_[index] != Served::NotAtAll) {
    device_.stop_queue(index);
    serve(index, Served::NotAtAll);
  }
}

void DeviceState::stop() {
  if (!has(kDriverOk)) {
    return;
  }
  device_.stop();
  for (std::uint16_t i = 0; i < queue_count(); ++i) {
    serve(i, Served::NotAtAll);
  }
}

void DeviceState::serve(std::uint16_t index, Served served) {
  // Not unwatch() and watch(): those allocate, this cannot fail.
  if ((served == Served::ByItself) != (served_[index] == Served::ByItself)) {
    loop_.change(queues_[index].kick.get(), served == Served::ByItself ? 0U : kKicks);
  }
  served_[index] = served;
}

void DeviceState::kicked(std::uint16_t index) {
  if (served_[index] == Served::ByItself) {  // seen by epoll just before it was handed over
    return;
  }
  if (served_[index] == Served::ByNotification) {
    device_.notified(index);
  }
}

}  // namespace martlet::virtio
