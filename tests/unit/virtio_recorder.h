#pragma once
// What the tests of virtio's transports share: a device that writes down what becomes of it, and refuses what
// no transport may do to a device.

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/virtio/device.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

class RecordingDevice final : public VirtioDevice {
 public:
  static constexpr std::array<std::uint16_t, 3> kSizes{8, 256, 16};
  static constexpr std::uint64_t kOwnFeature = 1U << 5U;
  using Log = std::vector<std::string>;

  explicit RecordingDevice(EventLoop& loop) : loop_{loop} {}

  // --- For the test. What the loop's thread writes is asked for there.

  /// What happened since the last look.
  Log take_log() {
    Log log;
    loop_.call([&] { log = std::exchange(log_, {}); });
    return log;
  }
  bool started() {
    bool is = false;
    loop_.call([&] { is = interrupts_ != nullptr; });
    return is;
  }
  /// The queue's set-up while it is started, else one of size 0.
  QueueSetup queue(std::size_t index) {
    QueueSetup setup;
    loop_.call([&] { setup = queues_.at(index) ? queues_.at(index)->setup() : QueueSetup{}; });
    return setup;
  }
  /// Does `task` with the driver's interrupts, if the device is started.
  void interrupt(const std::function<void(DriverInterrupts&)>& task) {
    loop_.call([&] {
      if (interrupts_ != nullptr) {
        task(*interrupts_);
      }
    });
  }
  int kick = -1;                       ///< of the queue that was started last
  std::atomic<bool> by_itself{false};  ///< serves_itself(), all queues
  std::atomic<bool> echoes{false};     ///< interrupts at each notification
  std::atomic<bool> holds{false};      ///< takes requests and keeps them in flight

  // --- VirtioDevice

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Entropy; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return kOwnFeature; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return kSizes; }

  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override {
    const std::lock_guard lock{mutex_};
    config_accesses += into.size() > 4 ? 1000 : 1;
    for (std::size_t i = 0; i < into.size(); ++i) {
      into[i] = offset + i < config.size() ? config.at(offset + i) : std::byte{0};
    }
  }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override {
    const std::lock_guard lock{mutex_};
    for (std::size_t i = 0; i < bytes.size() && offset + i < config.size(); ++i) {
      config.at(offset + i) = bytes[i];
    }
  }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return generation; }
  std::array<std::byte, 6> config{};
  unsigned config_accesses = 0;
  std::atomic<std::uint32_t> generation{0};

  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override {
    EXPECT_EQ(interrupts_, nullptr) << "started twice";
    interrupts_ = &interrupts;
    log_.push_back("start " + std::to_string(features));
  }
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick_fd) noexcept override {
    EXPECT_NE(interrupts_, nullptr) << "a queue before the device";
    EXPECT_EQ(queues_.at(index), nullptr) << "started twice";
    EXPECT_LE(queue->setup().size, kSizes.at(index));
    EXPECT_EQ(queue->setup().index, index);
    log_.push_back("start " + std::to_string(index) + " size " + std::to_string(queue->setup().size));
    queues_.at(index) = std::move(queue);
    kick = kick_fd;
  }
  [[nodiscard]] bool serves_itself(std::uint16_t index) const noexcept override {
    EXPECT_NE(queues_.at(index), nullptr) << "asked too early";
    return by_itself;
  }
  void notified(std::uint16_t index) noexcept override {
    EXPECT_NE(queues_.at(index), nullptr) << "notified of a queue that is not started";
    EXPECT_FALSE(by_itself);
    log_.push_back("notified " + std::to_string(index));
    if (echoes) {
      interrupts_->queue_used(index);
    }
    while (holds) {
      auto chain = queues_.at(index)->pop();
      if (!chain) {
        break;
      }
      held_.at(index).push_back(std::move(*chain));
      log_.push_back("holds " + std::to_string(index));
    }
  }
  void stop_queue(std::uint16_t index) noexcept override {
    held_.at(index).clear();
    queues_.at(index).reset();
    log_.push_back("stop " + std::to_string(index));
  }
  void stop() noexcept override {
    EXPECT_NE(interrupts_, nullptr) << "stopped twice";
    held_ = {};
    queues_ = {};
    interrupts_ = nullptr;
    log_.emplace_back("stop");
  }

 private:
  EventLoop& loop_;
  std::mutex mutex_;
  DriverInterrupts* interrupts_ = nullptr;
  std::array<std::unique_ptr<VirtQueue>, kSizes.size()> queues_;
  std::array<std::vector<DescriptorChain>, kSizes.size()> held_;
  Log log_;
};

/// An event loop that runs on a thread of its own, as long as this lives.
class RunningLoop {
 public:
  explicit RunningLoop(EventLoop& loop) : loop_{loop} {
    const Fd event = make_eventfd();
    std::promise<void> runs;
    loop_.watch(event.get(), EPOLLIN, [&](std::uint32_t) {
      loop_.unwatch(event.get());
      runs.set_value();
    });
    signal_eventfd(event.get());
    thread_ = std::thread{[this] { loop_.run(); }};
    runs.get_future().wait();
  }
  RunningLoop(const RunningLoop&) = delete;
  RunningLoop& operator=(const RunningLoop&) = delete;
  ~RunningLoop() {
    loop_.call([this] { loop_.stop(); });
    thread_.join();
  }
  /// Returns when every event of before has been handled: the first call may overtake those of its own round,
  /// the second is in a later one.
  void settle() {
    loop_.call([] {});
    loop_.call([] {});
  }

 private:
  EventLoop& loop_;
  std::thread thread_;
};

}  // namespace martlet::virtio
