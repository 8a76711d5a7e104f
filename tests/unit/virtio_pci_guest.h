#pragma once
// A virtio device that answers every request with one byte, behind a PCI host, and a driver that finds it.

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "devices/virtio/pci.h"
#include "devices/virtio/pci_layout.h"
#include "tests/unit/pci_guest.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

class AnsweringDevice final : public VirtioDevice {
 public:
  static constexpr std::byte kAnswer{0x2a};

  AnsweringDevice(std::vector<std::uint16_t> sizes, DeviceId what) : sizes_{std::move(sizes)}, what_{what} {}
  [[nodiscard]] DeviceId id() const noexcept override { return what_; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return 1U << 5U; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes_; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override {
    for (auto& byte : into) {
      byte = offset < config.size() ? config[offset] : std::byte{0};
      ++offset;
    }
  }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override {
    for (const auto byte : bytes) {
      if (offset < config.size()) {
        config[offset] = byte;
      }
      ++offset;
    }
  }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return 0x1234; }

  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override {
    agreed = features;
    driver = &interrupts;
  }
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int /*kick*/) noexcept override {
    queues[index] = std::move(queue);
    notified(index);
  }
  void notified(std::uint16_t index) noexcept override {
    ++notifications;
    auto& queue = *queues.at(index);
    while (auto chain = queue.pop()) {
      const auto room = chain->writable();
      if (!room.empty()) {
        room[0][0] = kAnswer;
      }
      queue.complete(std::move(*chain), room.empty() ? 0 : 1);
    }
    queue.notify();
  }
  void stop_queue(std::uint16_t index) noexcept override { queues.erase(index); }
  void stop() noexcept override {
    queues.clear();
    driver = nullptr;
  }

  std::array<std::byte, 8> config{};
  std::uint64_t agreed = 0;
  DriverInterrupts* driver = nullptr;  ///< while started
  std::map<std::uint16_t, std::unique_ptr<VirtQueue>> queues;
  int notifications = 0;

 private:
  std::vector<std::uint16_t> sizes_;
  DeviceId what_;
};

/// Registers of the common configuration, virtio 1.2 §4.1.4.3, by their offsets.
namespace reg {
enum : std::uint32_t {
  kDeviceFeatureSelect = 0,
  kDeviceFeature = 4,
  kDriverFeatureSelect = 8,
  kDriverFeature = 12,
  kConfigVector = 16,
  kQueueCount = 18,
  kStatus = 20,
  kGeneration = 21,
  kQueueSelect = 22,
  kQueueSize = 24,
  kQueueVector = 26,
  kQueueEnable = 28,
  kQueueNotifyOff = 30,
  kQueueDesc = 32,
  kQueueDriver = 40,
  kQueueDevice = 48,
  kQueueNotifyData = 56,
  kQueueReset = 58,
  kEnd = 60,
};
}  // namespace reg

/// Runs a loop as long as it lives.
class LoopThread {
 public:
  explicit LoopThread(EventLoop& loop) : loop_{loop} {
    loop_.watch(begun_.get(), EPOLLIN, [this](std::uint32_t) {
      loop_.unwatch(begun_.get());
      running_ = true;
      running_.notify_one();
    });
    signal_eventfd(begun_.get());
    thread_ = std::thread{[this] { loop_.run(); }};
    running_.wait(false);  // from now on, what is called is done there
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  ~LoopThread() {
    loop_.call([this] { loop_.stop(); });
    thread_.join();
  }

 private:
  EventLoop& loop_;
  Fd begun_ = make_eventfd();
  std::atomic<bool> running_ = false;
  std::thread thread_;
};

/// The machine and its guest. FakeDriver has the rings; its own interrupts are not used.
struct VirtioPciMachine {
  explicit VirtioPciMachine(std::vector<std::uint16_t> sizes = {16, 16}, DeviceId what = DeviceId::Entropy)
      : device{std::move(sizes), what} {}

  [[nodiscard]] std::uint64_t page(pci_layout::Page which) const { return guest.bar(0) + offset_of(which); }
  template <class T>
  [[nodiscard]] T read(std::uint32_t field) const {
    return guest.memory<T>(page(pci_layout::Page::Common) + field);
  }
  template <class T>
  void write(std::uint32_t field, T value) const {
    guest.set_memory<T>(page(pci_layout::Page::Common) + field, value);
  }
  void status(unsigned bits) const { write(reg::kStatus, static_cast<std::uint8_t>(bits)); }
  [[nodiscard]] std::uint8_t status() const { return read<std::uint8_t>(reg::kStatus); }
  void select(std::uint16_t queue) const { write<std::uint16_t>(reg::kQueueSelect, queue); }
  [[nodiscard]] std::uint8_t read_isr() const { return guest.memory<std::uint8_t>(page(pci_layout::Page::Isr)); }

  void enable_memory() const { guest.command(pci::kMemorySpace | pci::kBusMaster); }
  void negotiate(std::uint64_t features = kVersion1 | kRingReset) const {
    status(kAcknowledge);
    status(kAcknowledge | kDriver);
    write<std::uint32_t>(reg::kDriverFeatureSelect, 0);
    write<std::uint32_t>(reg::kDriverFeature, static_cast<std::uint32_t>(features));
    write<std::uint32_t>(reg::kDriverFeatureSelect, 1);
    write<std::uint32_t>(reg::kDriverFeature, static_cast<std::uint32_t>(features >> 32U));
    status(kAcknowledge | kDriver | kFeaturesOk);
  }
  void enable_queue(std::uint16_t queue, std::uint16_t vector = VirtioPci::kNoVector) const {
    const auto& setup = driver.setup(queue);
    select(queue);
    write<std::uint16_t>(reg::kQueueSize, setup.size);
    write<std::uint64_t>(reg::kQueueDesc, raw(setup.descriptors));
    write<std::uint32_t>(reg::kQueueDriver, static_cast<std::uint32_t>(raw(setup.driver)));
    write<std::uint32_t>(reg::kQueueDriver + 4, static_cast<std::uint32_t>(raw(setup.driver) >> 32U));
    write<std::uint64_t>(reg::kQueueDevice, raw(setup.device));
    write<std::uint16_t>(reg::kQueueVector, vector);
    write<std::uint16_t>(reg::kQueueEnable, 1);
  }
  void go() const { status(kAcknowledge | kDriver | kFeaturesOk | kDriverOk); }
  /// All of it, with INTx.
  void start() const {
    enable_memory();
    negotiate();
    enable_queue(0);
    enable_queue(1);
    go();
  }
  void use_msix() const {
    const auto at = guest.capabilities(0x11).at(0);
    guest.set_config<std::uint16_t>(at + 2U, 0x8000);
    for (std::uint32_t vector = 0; vector < 3; ++vector) {
      const auto entry = page(pci_layout::Page::MsixTable) + std::uint64_t{16} * vector;
      guest.set_memory<std::uint32_t>(entry, 0xfee00000);
      guest.set_memory<std::uint32_t>(entry + 8, 100 + vector);
      guest.set_memory<std::uint32_t>(entry + 12, 0);
    }
  }
  void notify(std::uint16_t queue) const {
    guest.set_memory<std::uint16_t>(page(pci_layout::Page::Notify) + std::uint64_t{4} * queue, queue);
  }
  /// When it returns, the loop has handled what was ready before: a second call comes in a second batch of events.
  void settle() {
    loop.call([] {});
    loop.call([] {});
  }

  AnsweringDevice device;
  EventLoop loop;
  FakeDriver driver{{.size = 16}};
  FakeDoorbells doorbells;
  FakeMsiRouter router;
  VirtioPci function{device, {.memory = driver.memory(), .loop = loop, .doorbells = doorbells, .router = router}};
  PciHost host{kPciWindow};
  PciGuest guest{host, host.add(function)};
  LoopThread thread{loop};  // from here on, as in a machine
};

}  // namespace martlet::virtio
