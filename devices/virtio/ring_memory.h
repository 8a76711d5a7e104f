#pragma once
// Access to rings in guest memory, which the driver writes at the same time.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace martlet::virtio {

/// One area of a ring, checked when the queue was made: inside guest memory and aligned. Offsets come from
/// the queue's own indices, always masked or counted to its size, and never from the guest.
class RingMemory {
 public:
  explicit RingMemory(std::span<std::byte> bytes) noexcept : bytes_{bytes.data()} {}

  [[nodiscard]] std::uint16_t load(std::size_t offset, std::memory_order order) const noexcept {
    return word(offset).load(order);
  }
  void store(std::size_t offset, std::uint16_t value, std::memory_order order) const noexcept {
    word(offset).store(value, order);
  }
  /// A copy to check and to use: what lies in the ring may change under our eyes.
  template <class T>
  [[nodiscard]] T copy(std::size_t offset) const noexcept {
    T value{};
    std::memcpy(&value, bytes_ + offset, sizeof(T));
    return value;
  }
  template <class T>
  void put(std::size_t offset, const T& value) const noexcept {
    std::memcpy(bytes_ + offset, &value, sizeof(T));
  }

 private:
  [[nodiscard]] std::atomic_ref<std::uint16_t> word(std::size_t offset) const noexcept {
    return std::atomic_ref<std::uint16_t>{*reinterpret_cast<std::uint16_t*>(bytes_ + offset)};
  }

  std::byte* bytes_;
};

/// The three areas that the driver tells the transport of each queue (QueueSetup).
struct RingAreas {
  RingMemory descriptors;
  RingMemory driver;
  RingMemory device;
};

}  // namespace martlet::virtio
