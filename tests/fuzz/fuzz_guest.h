#pragma once
// A guest for device fuzzers: split rings that are sound as a rule, chains of any shape, and pokes anywhere.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "devices/virtio/queue.h"
#include "devices/virtio/wire.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

class FuzzInput {
 public:
  explicit FuzzInput(std::span<const std::uint8_t> bytes) : bytes_{bytes} {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  /// The next bytes of the input; zeroes beyond its end.
  template <class T>
  T take() {
    T value{};
    const auto count = std::min(sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

class FuzzGuest final : public DriverInterrupts {
 public:
  static constexpr std::uint16_t kSize = 8;
  static constexpr std::uint64_t kRam = 1U << 20U;

  [[nodiscard]] std::unique_ptr<VirtQueue> make_queue(std::uint16_t queue) {
    const QueueSetup setup{.index = queue,
                           .size = kSize,
                           .descriptors = base(queue),
                           .driver = base(queue) + 0x100,
                           .device = base(queue) + 0x200,
                           .features = kVersion1 | kIndirectDescriptors | kInOrder};
    const std::array<std::byte, 0x300> zeroes{};
    static_cast<void>(memory_.write(base(queue), zeroes));
    return VirtQueue::make(memory_, setup, *this);
  }

  /// Up to four descriptors as the input says, and the first of them made available. What they hold, too.
  void submit(FuzzInput& input, std::uint16_t queue) {
    const auto shape = input.take<std::uint8_t>();
    const auto head = static_cast<std::uint16_t>(shape % kSize);
    const unsigned count = 1 + (shape >> 3U) % 4;
    for (unsigned i = 0; i < count; ++i) {
      const auto slot = static_cast<std::uint16_t>((head + i) % kSize);
      const auto kind = input.take<std::uint8_t>();
      const auto size = input.take<std::uint16_t>();
      SplitDescriptor descriptor{.addr = 0x8'0000U + 0x1000U * (kind >> 4U),
                                 .len = (kind & 4U) != 0 ? std::uint32_t{size} << 4U : size % 64U,
                                 .flags = static_cast<std::uint16_t>((kind & kWrite) | (i + 1 < count ? kNext : 0)),
                                 .next = static_cast<std::uint16_t>((slot + 1) % kSize)};
      if ((kind & 8U) != 0) {
        static_cast<void>(memory_.write(GuestAddr{descriptor.addr}, input.take<std::uint64_t>()));
      }
      static_cast<void>(memory_.write(base(queue) + sizeof descriptor * slot, descriptor));
    }
    const auto avail = base(queue) + 0x100;
    const auto index = memory_.read<std::uint16_t>(avail + 2).value_or(0);
    static_cast<void>(memory_.write(avail + 4 + 2U * (index % kSize), head));
    static_cast<void>(memory_.write(avail + 2, static_cast<std::uint16_t>(index + 1)));
  }
  /// Anything into the rings.
  void poke(FuzzInput& input) {
    const auto addr = GuestAddr{input.take<std::uint16_t>()};
    static_cast<void>(memory_.write(addr, input.take<std::uint32_t>()));
  }

  void queue_used(std::uint16_t /*queue*/) noexcept override {}
  void config_changed() noexcept override {}
  void needs_reset() noexcept override {}
  [[nodiscard]] int call_fd(std::uint16_t /*queue*/) const noexcept override { return -1; }

 private:
  static GuestAddr base(std::uint16_t queue) { return GuestAddr{0x400U * queue}; }

  static constexpr std::array<GuestRange, 1> kRanges{{{GuestAddr{0}, kRam}}};
  GuestMemory memory_{kRanges};
};

}  // namespace martlet::virtio
