// A driver that does anything to the MMIO transport: register accesses and guest memory writes, in any order,
// before a device that echoes requests and keeps some of them in flight. What a transport may not do to a
// device, whatever the driver does, is a trap here.

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "devices/virtio/mmio.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kRamSize = 0x10000;
constexpr std::array<GuestRange, 1> kRam{GuestRange{GuestAddr{0}, kRamSize}};

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

class EchoDevice final : public VirtioDevice {
 public:
  static constexpr std::array<std::uint16_t, 2> kSizes{16, 64};

  enum class Keep { Nothing, Everything };
  Keep keep = Keep::Nothing;

  void complete_kept() noexcept {
    for (std::uint16_t i = 0; i < kSizes.size(); ++i) {
      for (auto& chain : kept_.at(i)) {
        queues_.at(i)->complete(std::move(chain), 0);
      }
      kept_.at(i).clear();
    }
  }
  void config_change() noexcept {
    ++generation_;
    if (interrupts_ != nullptr) {
      interrupts_->config_changed();
    }
  }
  [[nodiscard]] bool started() const noexcept { return interrupts_ != nullptr; }

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Console; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return 1; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return kSizes; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override {
    require(into.size() <= 4 && offset < VirtioMmio::kSize);
    std::ranges::fill(into, std::byte{0x5a});
  }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override {
    require(bytes.size() <= 4 && offset < VirtioMmio::kSize);
  }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return generation_; }

  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override {
    require(interrupts_ == nullptr && (features & kVersion1) != 0);
    interrupts_ = &interrupts;
  }
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int /*kick*/) noexcept override {
    require(interrupts_ != nullptr && queues_.at(index) == nullptr && queue->setup().size <= kSizes.at(index));
    queues_.at(index) = std::move(queue);
    serve(index);
  }
  void notified(std::uint16_t index) noexcept override {
    require(queues_.at(index) != nullptr);
    serve(index);
  }
  void stop_queue(std::uint16_t index) noexcept override {
    kept_.at(index).clear();  // dropped: they go back with length 0
    queues_.at(index).reset();
  }
  void stop() noexcept override {
    require(interrupts_ != nullptr);
    for (std::uint16_t i = 0; i < kSizes.size(); ++i) {
      stop_queue(i);
    }
    interrupts_ = nullptr;
  }

 private:
  void serve(std::uint16_t index) noexcept {
    auto& queue = *queues_.at(index);
    // A ring that the driver has run in circles is not ours to empty.
    for (int i = 0; i < 256; ++i) {
      auto chain = queue.pop();
      if (!chain) {
        break;
      }
      if (keep == Keep::Everything) {
        kept_.at(index).push_back(std::move(*chain));
        continue;
      }
      const auto written = echo(*chain);
      queue.complete(std::move(*chain), written);
    }
    queue.notify();
  }

  static std::uint32_t echo(const DescriptorChain& chain) noexcept {
    std::vector<std::byte> data;
    for (const auto& buffer : chain.readable()) {
      data.insert(data.end(), buffer.begin(), buffer.end());
    }
    std::size_t at = 0;
    for (const auto& buffer : chain.writable()) {
      const auto part = std::min(buffer.size(), data.size() - at);
      std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(at), part, buffer.begin());
      at += part;
    }
    return static_cast<std::uint32_t>(at);
  }

  DriverInterrupts* interrupts_ = nullptr;
  std::uint32_t generation_ = 0;
  std::array<std::unique_ptr<VirtQueue>, kSizes.size()> queues_;
  std::array<std::vector<DescriptorChain>, kSizes.size()> kept_;
};

struct NoBells final : Doorbells {
  bool add(GuestAddr /*addr*/, int /*eventfd*/) noexcept override { return false; }
  void remove(GuestAddr /*addr*/, int /*eventfd*/) noexcept override {}
};

class Driver {
 public:
  explicit Driver(std::span<const std::byte> script) : script_{script} {}

  /// Each step is a turn of the event loop, so that notifications are heard between steps.
  void run() {
    const Fd turn = make_eventfd();
    loop_.watch(turn.get(), EPOLLIN, [&](std::uint32_t) {
      drain_counter(turn.get());
      if (script_.empty()) {
        loop_.stop();
        return;
      }
      step();
      require(device_.started() == ((in(0x70) & kDriverOk) != 0));
      signal_eventfd(turn.get());
    });
    signal_eventfd(turn.get());
    loop_.run();
    out(0x70, 0);
    require(!device_.started() && in(0x70) == 0 && in(0x60) == 0);
  }

 private:
  template <class T>
  T take() {
    T value{};
    const auto part = script_.first(std::min(sizeof value, script_.size()));
    std::memcpy(&value, part.data(), part.size());
    script_ = script_.subspan(part.size());
    return value;
  }
  std::uint32_t in(std::uint64_t offset) {
    std::uint32_t value = 0;
    mmio_.read(offset, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
  void out(std::uint64_t offset, std::uint32_t value) { mmio_.write(offset, std::as_bytes(std::span{&value, 1})); }

  void step() {
    switch (take<std::uint8_t>() % 8) {
      case 0: {
        const std::uint64_t offset = take<std::uint8_t>() * 4ULL;
        out(offset, take<std::uint32_t>());
        break;
      }
      case 1:
        return access();
      case 2: {
        const GuestAddr addr{take<std::uint16_t>()};
        const auto bytes = script_.first(std::min<std::size_t>(take<std::uint8_t>(), script_.size()));
        script_ = script_.subspan(bytes.size());
        [[maybe_unused]] const bool inside = memory_.write(addr, bytes);
        break;
      }
      case 3:
        return negotiate();
      case 4:
        return set_up();
      case 5:
        out(0x50, take<std::uint8_t>() & 3U);
        break;
      case 6:
        device_.keep = take<std::uint8_t>() % 2 != 0 ? EchoDevice::Keep::Everything : EchoDevice::Keep::Nothing;
        break;
      default:
        device_.complete_kept();
        device_.config_change();
    }
  }

  void access() {
    const std::uint64_t offset = take<std::uint16_t>() % VirtioMmio::kSize;
    const std::size_t width = std::min<std::size_t>(1ULL << take<std::uint8_t>() % 4, VirtioMmio::kSize - offset);
    auto value = take<std::uint64_t>();
    const std::span bytes{&value, 1};
    mmio_.write(offset, std::as_bytes(bytes).first(width));
    mmio_.read(offset, std::as_writable_bytes(bytes).first(width));
  }

  /// Short cuts: what a sane driver does, so that the fuzzer need not find its way through each time.
  void negotiate() {
    const auto features = take<std::uint8_t>();
    out(0x70, kAcknowledge | kDriver);
    out(0x24, 0);
    out(0x20, static_cast<std::uint32_t>((features & 1U) != 0 ? kIndirectDescriptors : 0) |
                  static_cast<std::uint32_t>((features & 2U) != 0 ? kEventIndex : 0));
    out(0x24, 1);
    out(0x20, static_cast<std::uint32_t>((kVersion1 | ((features & 4U) != 0 ? kRingPacked : 0) | kRingReset) >> 32U));
    out(0x70, kFeaturesOk);
    if ((features & 8U) != 0) {
      out(0x70, kDriverOk);
    }
  }
  void set_up() {
    const std::uint32_t queue = take<std::uint8_t>() & 3U;
    out(0x30, queue);
    out(0x38, take<std::uint8_t>());
    out(0x80, queue * 0x4000);
    out(0x90, queue * 0x4000 + 0x400);
    out(0xa0, queue * 0x4000 + 0x500);
    out(0x44, 1);
  }

  std::span<const std::byte> script_;
  EventLoop loop_;
  GuestMemory memory_{kRam};
  EchoDevice device_;
  IrqLine irq_;
  NoBells bells_;
  VirtioMmio mmio_{VirtioMmio::Wiring{
      .device = device_, .memory = memory_, .loop = loop_, .irq = irq_, .doorbells = bells_, .base = {}}};
};

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::Driver{std::as_bytes(std::span{data, size})}.run();
  return 0;
}
