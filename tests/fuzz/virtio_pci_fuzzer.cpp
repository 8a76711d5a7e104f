// A guest that accesses a virtio function anyhow: configuration space, each page of the BAR, doorbells,
// rings in guest memory. Each 8 bytes of input are one access.

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "devices/pci/host.h"
#include "devices/virtio/pci.h"

namespace martlet::virtio {
namespace {

constexpr GuestRange kWindow{GuestAddr{0xc0000000}, 0x100000};
constexpr std::size_t kRam = 0x10000;
constexpr std::array<std::uint16_t, 3> kSizes{8, 2, 16};

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

/// Takes what comes and gives it back.
class Device final : public VirtioDevice {
 public:
  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Entropy; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return kInOrder | 3; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return kSizes; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override {
    std::ranges::fill(into, static_cast<std::byte>(offset));
  }
  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override {
    require(!started_ && (features & kVersion1) != 0 && (features & ~(self_features() | kRings)) == 0);
    started_ = true;
    driver_ = &interrupts;
  }
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override {
    require(started_ && queues_.count(index) == 0 && kick >= 0);
    queues_[index] = std::move(queue);
    notified(index);
  }
  void notified(std::uint16_t index) noexcept override {
    auto& queue = *queues_.at(index);
    for (int budget = 64; budget > 0; --budget) {
      auto chain = queue.pop();
      if (!chain) {
        break;
      }
      queue.complete(std::move(*chain), 0);
    }
    queue.notify();
    if (const int fd = driver_->call_fd(index); fd >= 0) {
      signal_eventfd(fd);
    }
  }
  void stop_queue(std::uint16_t index) noexcept override { queues_.erase(index); }
  void stop() noexcept override {
    queues_.clear();
    started_ = false;
  }

 private:
  static constexpr std::uint64_t kRings = kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked | kRingReset;
  [[nodiscard]] static std::uint64_t self_features() { return kInOrder | 3; }

  bool started_ = false;
  DriverInterrupts* driver_ = nullptr;
  std::map<std::uint16_t, std::unique_ptr<VirtQueue>> queues_;
};

struct Wires final : Doorbells, MsiRouter {
  bool add(GuestAddr addr, int eventfd) noexcept override {
    require(kWindow.contains({addr, 4}));
    return bells.emplace(raw(addr), eventfd).second;
  }
  void remove(GuestAddr addr, int eventfd) noexcept override {
    const auto found = bells.find(raw(addr));
    require(found != bells.end() && found->second == eventfd);
    bells.erase(found);
  }
  void connect(const IrqLine& line, const MsiMessage& message) noexcept override { joined[&line] = message; }
  void disconnect(const IrqLine& line) noexcept override { require(joined.erase(&line) == 1); }
  std::map<std::uint64_t, int> bells;
  std::map<const IrqLine*, MsiMessage> joined;
};

struct Access {
  std::uint8_t what;  // bits 0 to 1: where; 2: write; 4 to 5: width
  std::uint8_t page;
  std::uint16_t offset;
  std::uint32_t value;
};
static_assert(sizeof(Access) == 8);

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace martlet;
  using namespace martlet::virtio;
  static const GuestMemory memory{std::array{GuestRange{GuestAddr{0}, kRam}}};
  std::ranges::fill(*memory.slice(GuestAddr{0}, kRam), std::byte{0});
  static Wires wires;
  {
    EventLoop loop;  // nobody runs it: calls are done here
    Device device;
    VirtioPci function{device, {.memory = memory, .loop = loop, .doorbells = wires, .router = wires}};
    PciHost host{kWindow};
    host.add(function);
    const std::uint16_t running = pci::kMemorySpace | pci::kBusMaster;
    function.write_config(pci::kCommand, std::as_bytes(std::span{&running, 1}));
    for (; size >= sizeof(Access); data += sizeof(Access), size -= sizeof(Access)) {
      Access access{};
      std::memcpy(&access, data, sizeof access);
      std::array<std::byte, 8> all{};
      std::memcpy(all.data(), &access.value, sizeof access.value);
      const auto bytes = std::span{all}.first(std::size_t{1} << (access.what >> 4U & 3U));
      const bool write = (access.what & 4U) != 0;
      const auto in_page = access.offset & 0xfffU;
      switch (access.what & 3U) {
        case 0: {  // a page of the BAR, wherever the BAR is
          const auto offset = (access.page & 7U) * 0x1000U + in_page;
          if (offset + bytes.size() > function.bar_size(0)) {
            break;
          }
          write ? function.write_bar(0, offset, bytes) : function.read_bar(0, offset, bytes);
          break;
        }
        case 1:
          write ? function.write_config(in_page, bytes) : function.read_config(in_page, bytes);
          break;
        case 2: {
          const auto offset = (std::uint64_t{access.page} * 0x1000U + in_page) % (kWindow.size - bytes.size());
          write ? host.window().write(offset, bytes) : host.window().read(offset, bytes);
          break;
        }
        default:
          static_cast<void>(memory.write(GuestAddr{access.offset}, access.value));
          signal_eventfd(function.intx().resampled());
          break;
      }
    }
    // The loop handles what was kicked, and ends.
    const Fd last = make_eventfd();
    loop.watch(last.get(), EPOLLIN, [&](std::uint32_t) { loop.stop(); });
    signal_eventfd(last.get());
    loop.run();
  }
  require(wires.bells.empty() && wires.joined.empty());
  return 0;
}
