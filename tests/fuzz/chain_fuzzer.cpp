// Rings and tables of arbitrary bytes, followed by a device that pops, completes and notifies while the guest
// goes on scribbling. Whatever comes out must lie in guest memory and add up.
//
// Input: flags, ring size, the first kilobyte of guest memory (descriptors at 0, driver's area at 0x100, device's at
// 0x200), then what happens, in pairs of operation and argument.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio/chain.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/wire.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {
namespace {

constexpr std::array<GuestRange, 2> kRam{{{GuestAddr{0}, 0x1'0000}, {GuestAddr{0x2'0000}, 0x1000}}};
constexpr std::size_t kImage = 0x400;
enum InputFlag : std::uint8_t { kPacked = 1, kEvents = 2, kIndirectToo = 4, kRingsAnywhere = 8 };

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

struct Interrupts final : DriverInterrupts {
  void queue_used(std::uint16_t) noexcept override { ++used; }
  void config_changed() noexcept override {}
  void needs_reset() noexcept override { ++resets; }
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }
  unsigned used = 0;
  unsigned resets = 0;
};

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_{bytes} {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
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

bool inside(const GuestMemory& memory, std::span<const std::byte> buffer) {
  return std::ranges::any_of(memory.regions(), [&](const GuestMemory::Region& region) {
    return buffer.data() >= region.bytes.data() &&
           buffer.data() + buffer.size() <= region.bytes.data() + region.bytes.size();
  });
}

void check(const GuestMemory& memory, const DescriptorChain& chain, std::uint16_t size) {
  require(chain.readable().size() + chain.writable().size() <= size);
  std::uint64_t readable = 0, writable = 0;
  for (const auto buffer : chain.readable()) {
    require(!buffer.empty() && inside(memory, buffer));
    readable += buffer.size();
  }
  for (const auto buffer : chain.writable()) {
    require(!buffer.empty() && inside(memory, buffer));
    writable += buffer.size();
  }
  require(readable == chain.readable_bytes() && writable == chain.writable_bytes());
  ChainReader in{chain};
  std::array<std::byte, 24> header{};
  require(in.copy(header) == std::min<std::uint64_t>(readable, header.size()));
  std::array<iovec, 4> vectors{};
  while (!in.take(vectors).empty()) {
  }
  require(in.passed() == readable);
  ChainWriter out{chain};
  const auto last = out.take_last(1);
  require(last.has_value() == (writable > 0));
  require(out.zero(16) == std::min<std::uint64_t>(16, writable - (writable > 0 ? 1 : 0)));
}

void run(Input input) {
  static const GuestMemory memory{kRam};
  for (const auto& region : memory.regions()) {
    std::ranges::fill(region.bytes.first(0x1000), std::byte{0});
  }
  const auto flags = input.take<std::uint8_t>();
  const auto size = input.take<std::uint16_t>();
  const auto image = input.take<std::array<std::byte, kImage>>();
  std::ranges::copy(image, memory.regions()[0].bytes.begin());
  QueueSetup setup{.size = size,
                   .descriptors = GuestAddr{0},
                   .driver = GuestAddr{0x100},
                   .device = GuestAddr{0x200},
                   .features = kVersion1 | ((flags & kPacked) != 0 ? kRingPacked : Feature{}) |
                               ((flags & kEvents) != 0 ? kEventIndex : Feature{}) |
                               ((flags & kIndirectToo) != 0 ? kIndirectDescriptors : Feature{})};
  if ((flags & kRingsAnywhere) != 0) {
    setup.descriptors = GuestAddr{input.take<std::uint64_t>()};
    setup.driver = GuestAddr{input.take<std::uint64_t>()};
    setup.device = GuestAddr{input.take<std::uint64_t>()};
  }
  Interrupts interrupts;
  const auto queue = VirtQueue::make(memory, setup, interrupts);
  if (!queue) {
    return;
  }
  std::vector<DescriptorChain> held;
  while (!input.empty()) {
    const auto operation = input.take<std::uint8_t>();
    const auto argument = input.take<std::uint16_t>();
    const auto pick = [&] {
      std::swap(held[argument % held.size()], held.back());
      auto chain = std::move(held.back());
      held.pop_back();
      return chain;
    };
    switch (operation % 9) {
      case 0:
      case 1:
        if (auto chain = queue->pop()) {
          check(memory, *chain, size);
          held.push_back(std::move(*chain));
          require(held.size() <= size);
        }
        break;
      case 2:
        if (!held.empty()) {
          queue->complete(pick(), argument);
        }
        break;
      case 3:
        if (!held.empty()) {
          pick();  // and drops it
        }
        break;
      case 4:
        queue->notify();
        break;
      case 5:
        queue->disable_notifications();
        break;
      case 6:
        std::ignore = queue->enable_notifications();
        break;
      case 7:  // the guest scribbles
        memory.regions()[0].bytes[argument % kImage] ^= static_cast<std::byte>(argument >> 8U);
        break;
      case 8:
        if (held.size() >= 2) {
          std::array completions{VirtQueue::Completion{pick(), argument}, VirtQueue::Completion{pick(), 0}};
          queue->complete_together(completions);
        }
        break;
      default:
        break;
    }
    require(interrupts.resets == (queue->broken() ? 1U : 0U));
  }
}

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::run(martlet::virtio::Input{{data, size}});
  return 0;
}
