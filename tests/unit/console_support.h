#pragma once
// A console or named ports, their driver and the event loop on a thread of its own: what console tests share.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "devices/virtio/console.h"
#include "devices/virtio/console_ports.h"
#include "tests/support/subprocess.h"
#include "tests/unit/rest.h"
#include "tests/unit/stream_support.h"
#include "tests/unit/virtio_driver.h"
#include "vmm/base/error.h"

namespace martlet::virtio {

struct ConsoleTest : testing::TestWithParam<Ring> {
  static constexpr std::uint16_t kIn = 0;
  static constexpr std::uint16_t kOut = 1;
  static constexpr std::uint16_t kControlIn = 2;
  static constexpr std::uint16_t kControlOut = 3;
  static constexpr std::uint16_t kAgentIn = 4;
  static constexpr std::uint16_t kAgentOut = 5;
  static constexpr std::uint16_t kQueues = 8;

  ConsoleTest() {
    std::signal(SIGPIPE, SIG_IGN);
    for (std::uint16_t i = 0; i < kQueues; ++i) {
      kicks.push_back(make_eventfd());
      loop.watch(kicks.back().get(), EPOLLIN, [this, i](std::uint32_t) {
        drain_counter(kicks[i].get());
        if (device != nullptr && started[i]) {
          device->notified(i);
        }
      });
    }
  }
  ~ConsoleTest() override {
    on_loop([&] {
      if (device != nullptr) {
        device->stop();
      }
      remove();
    });
    on_loop([&] { loop.stop(); });
    if (thread.joinable()) {
      thread.join();
    }
  }

  void make(const SerialTarget& target) { device = &console.emplace(loop, target, hooks); }
  void make_ports(const std::vector<PortOptions>& options, std::vector<ConsolePort::Hooks> port_hooks = {}) {
    device = &ports.emplace(loop, options, std::move(port_hooks));
  }
  /// As it is, queues and all.
  void remove() {
    device = nullptr;
    console.reset();
    ports.reset();
  }
  void on_loop(const std::function<void()>& task) { loop.call(task); }

  /// The driver comes; with `features`, those of the device's own that it accepts.
  void start(std::uint64_t features) {
    if (!thread.joinable()) {
      thread = std::jthread{[this] { loop.run(); }};
    }
    on_loop([&] { device->start(driver.features() | features, driver); });
    for (std::uint16_t i = 0; i < device->queue_sizes().size(); ++i) {
      start_queue(i);
    }
  }
  void start_queue(std::uint16_t queue) {
    on_loop([&] {
      started[queue] = true;
      device->start_queue(queue, driver.make_queue(queue), kicks[queue].get());
    });
  }
  void stop() {
    on_loop([&] {
      device->stop();
      started = {};
    });
  }
  void kick(std::uint16_t queue) { signal_eventfd(kicks[queue].get()); }

  /// Hands over one chain, not waiting for it.
  void submit(std::uint16_t queue, std::string_view text) {
    driver.chain(queue).readable(text).submit();
    kick(queue);
  }
  std::optional<FakeDriver::Used> wait_used(std::uint16_t queue) {
    std::optional<FakeDriver::Used> used;
    EXPECT_TRUE(eventually([&] { return (used = driver.take_used(queue)).has_value(); }));
    return used;
  }
  void send(std::uint16_t queue, std::string_view text) {
    submit(queue, text);
    wait_used(queue);
  }
  /// As fast as the device takes it, in chains of `chunk` bytes in two buffers, several in flight.
  void pour(std::uint16_t queue, std::string_view text, std::size_t chunk = 60000) {
    std::size_t in_flight = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{50};
    while ((!text.empty() || in_flight != 0) && std::chrono::steady_clock::now() < deadline) {
      while (!text.empty() && driver.free_descriptors(queue) >= 2) {
        const auto part = text.substr(0, chunk);
        const auto half = part.size() / 2;
        driver.chain(queue).readable(part.substr(0, half)).readable(part.substr(half)).submit();
        text.remove_prefix(part.size());
        ++in_flight;
      }
      if (driver.kick_wanted(queue)) {
        kick(queue);
      }
      while (driver.take_used(queue)) {
        --in_flight;
      }
      std::this_thread::yield();
    }
    EXPECT_EQ(in_flight, 0U);
  }
  /// Gives the device buffers and collects what it writes, until `size` bytes came.
  std::string collect(std::uint16_t queue, std::size_t size, std::uint32_t buffer = 4096) {
    std::string text;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{50};
    while (text.size() < size && std::chrono::steady_clock::now() < deadline) {
      while (driver.in_flight(queue) < 4) {
        driver.chain(queue).writable(buffer / 2).writable(buffer - buffer / 2).submit();
      }
      if (driver.kick_wanted(queue)) {
        kick(queue);
      }
      while (const auto used = driver.take_used(queue)) {
        text += used->text();
      }
      std::this_thread::yield();
    }
    return text;
  }

  Fd dial(const std::string& path) {
    Fd client{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return client;
  }
  [[nodiscard]] std::string path(std::string_view name) const { return directory.file(name); }
  [[nodiscard]] static SerialTarget file(std::string path) {
    return {.kind = SerialTarget::Kind::File, .path = std::move(path)};
  }
  [[nodiscard]] static SerialTarget socket(std::string path) {
    return {.kind = SerialTarget::Kind::Socket, .path = std::move(path)};
  }
  /// Until the loop has done what it can do.
  bool settles() { return comes_to_rest(loop, std::chrono::milliseconds{50}); }

  const test::TempDir directory;
  EventLoop loop;
  FakeDriver driver{{.size = 16, .ring = GetParam(), .features = kInOrder | kIndirectDescriptors, .queues = kQueues}};
  std::vector<Fd> kicks;
  std::array<bool, kQueues> started{};
  ConsolePort::Hooks hooks;
  std::optional<Console> console;
  std::optional<ConsolePorts> ports;
  VirtioDevice* device = nullptr;  // one of them
  std::jthread thread;
};

inline std::string ring_name(const testing::TestParamInfo<Ring>& tested) {
  return tested.param == Ring::Split ? "Split" : "Packed";
}

}  // namespace martlet::virtio
