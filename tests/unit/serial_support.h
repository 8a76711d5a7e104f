#pragma once
// A serial port's backend, its device and the event loop on a thread of its own: what its tests share.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "devices/serial_backend.h"
#include "tests/support/subprocess.h"
#include "tests/unit/rest.h"
#include "tests/unit/stream_support.h"
#include "vmm/base/error.h"
#include "vmm/base/irq_line.h"

namespace martlet {

/// Takes what fits, as a UART does; the test empties it.
struct Device final : SerialDevice {
  std::size_t room() noexcept override {
    const std::lock_guard lock{mutex};
    refused = refused || held.size() >= limit;
    return limit - held.size();
  }
  std::size_t receive(std::span<const std::byte> bytes) noexcept override {
    const std::lock_guard lock{mutex};
    const auto taken = std::min(bytes.size(), limit - held.size());
    held += text_of(bytes.first(taken));
    refused = taken < bytes.size();
    return taken;
  }
  std::string take() {
    bool wake = false;
    std::string text;
    {
      const std::lock_guard lock{mutex};
      text.swap(held);
      wake = std::exchange(refused, false);
    }
    if (wake) {
      host->has_room();
    }
    return text;
  }
  std::string take(std::size_t size) {
    std::string text;
    eventually(
        [&] {
          text += take();
          return text.size() >= size;
        },
        std::chrono::microseconds{0});
    return text;
  }
  SerialHost* host = nullptr;
  std::mutex mutex;
  std::string held;
  std::size_t limit = 16;
  bool refused = false;
};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    check(::pipe2(ends.data(), O_CLOEXEC), "pipe");
    read = Fd{ends[0]};
    write = Fd{ends[1]};
  }
  Fd read;
  Fd write;
};

struct Serial : ::testing::Test {
  Serial() {
    std::signal(SIGPIPE, SIG_IGN);
    loop.watch(stop.fd(), EPOLLIN, [this](std::uint32_t) { loop.stop(); });
  }
  ~Serial() override {
    halt();
    backend.reset();
  }

  /// A backend on `in` and `out` as our stdin and stdout; -1 is /dev/null.
  void make_stdio(int in, int out) {
    std::fflush(stdout);
    const auto null = open_file("/dev/null", O_RDWR);
    const auto saved_in = duplicate(0);
    const auto saved_out = duplicate(1);
    ::dup2(in < 0 ? null.get() : in, 0);
    ::dup2(out < 0 ? null.get() : out, 1);
    make({.kind = SerialTarget::Kind::Stdio});
    ::dup2(saved_in.get(), 0);
    ::dup2(saved_out.get(), 1);
  }
  void make(const SerialTarget& target) {
    hooks.observe = [this, also = hooks.observe](std::span<const std::byte> bytes) {
      observed += bytes.size();
      if (also) {
        also(bytes);
      }
    };
    backend.emplace(loop, target, hooks);
    device.host = &*backend;
  }
  void run() {
    backend->connect(device);
    run_unconnected();
  }
  void run_unconnected() {
    thread = std::jthread{[this] { loop.run(); }};
  }
  /// Ends the loop; from here on the test may call finish().
  void halt() {
    if (thread.joinable()) {
      stop.raise();
      thread.join();
    }
  }
  void put(std::string_view text) {
    for (const char c : text) {
      backend->put(static_cast<std::byte>(c));
    }
  }
  /// As a vCPU does, which never gets far ahead of the loop, on a host that is not starved.
  void put_slowly(std::string_view text) {
    constexpr std::size_t kChunk = SerialBackend::kInboxSize / 4;
    for (std::size_t at = 0; at < text.size(); at += kChunk) {
      const auto chunk = text.substr(at, kChunk);
      const auto seen = observed + chunk.size();
      put(chunk);
      EXPECT_TRUE(eventually([&] { return observed >= seen; }, std::chrono::microseconds{10}));
    }
  }
  /// The loop has nothing to do any more.
  bool sleeps_on() { return comes_to_rest(loop, std::chrono::milliseconds{100}); }

  const test::TempDir directory;
  EventLoop loop;
  IrqLine stop;
  Device device;
  SerialBackend::Hooks hooks;
  std::optional<SerialBackend> backend;
  std::atomic<std::size_t> observed = 0;
  std::jthread thread;
};

}  // namespace martlet
