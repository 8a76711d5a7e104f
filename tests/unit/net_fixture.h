#pragma once
// A virtio-net device between a fake driver and a fake network, its event loop on a thread of its own.

#include <sys/epoll.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "devices/virtio/net.h"
#include "tests/unit/virtio_driver.h"

namespace martlet::virtio {

using Frame = std::vector<std::byte>;

/// Holds frames in memory. Used on the loop's thread only.
class FakeBackend final : public NetBackend {
 public:
  struct Pair {
    std::deque<Frame> to_guest;  // with headers
    std::vector<Frame> from_guest;
    Fd ready = make_eventfd();
    int receives = 0;  // calls
    int sends = 0;
  };

  explicit FakeBackend(std::uint16_t pairs = 1) : pairs_(pairs) {}

  std::vector<Pair> pairs_;
  std::uint32_t offered = kChecksum | kTso4 | kTso6 | kTsoEcn | kUfo | kUso;
  std::uint32_t wanted = 0;
  std::uint16_t enabled = 1;
  bool full = false;
  bool gone = false;
  bool link_up = true;
  Fd link_changed = make_eventfd();

  void plug(bool up) {
    link_up = up;
    signal_eventfd(link_changed.get());
  }
  void push(Frame frame, std::uint16_t pair = 0) {
    pairs_[pair].to_guest.push_back(std::move(frame));
    signal_eventfd(pairs_[pair].ready.get());
  }

  [[nodiscard]] std::uint16_t pairs() const noexcept override { return static_cast<std::uint16_t>(pairs_.size()); }
  [[nodiscard]] std::uint32_t offloads() const noexcept override { return offered; }
  [[nodiscard]] std::uint16_t mtu() const noexcept override { return 1500; }
  [[nodiscard]] int link_fd() const noexcept override { return link_changed.get(); }
  [[nodiscard]] bool refresh_link() noexcept override {
    drain_counter(link_changed.get());
    return link_up;
  }
  [[nodiscard]] int fd(std::uint16_t pair) const noexcept override { return pairs_[pair].ready.get(); }
  [[nodiscard]] bool set_offloads(std::uint32_t bits) noexcept override {
    wanted = bits;
    return true;
  }
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept override {
    enabled = count;
    return true;
  }
  [[nodiscard]] std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept override {
    auto& self = pairs_[pair];
    ++self.receives;
    if (gone) {
      return -ENODEV;
    }
    if (self.to_guest.empty()) {
      drain_counter(self.ready.get());
      return -EAGAIN;
    }
    const Frame frame = std::move(self.to_guest.front());
    self.to_guest.pop_front();
    if (self.to_guest.empty()) {
      drain_counter(self.ready.get());
    }
    std::size_t done = 0;
    for (const auto& vector : into) {
      const auto part = std::min(vector.iov_len, frame.size() - done);
      std::memcpy(vector.iov_base, frame.data() + done, part);
      done += part;
    }
    return static_cast<std::ptrdiff_t>(done);
  }
  [[nodiscard]] std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept override {
    auto& self = pairs_[pair];
    ++self.sends;
    if (gone) {
      return -ENODEV;
    }
    if (full) {
      return -EAGAIN;
    }
    Frame whole;
    for (const auto& vector : frame) {
      const auto* const bytes = static_cast<const std::byte*>(vector.iov_base);
      whole.insert(whole.end(), bytes, bytes + vector.iov_len);
    }
    self.from_guest.push_back(whole);
    return static_cast<std::ptrdiff_t>(whole.size());
  }
};

/// `bytes` of a frame that all differ from their neighbours.
inline Frame payload(std::size_t bytes, unsigned seed = 0) {
  Frame frame(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    frame[i] = static_cast<std::byte>(i * 7 + (i >> 8U) + seed);
  }
  return frame;
}

inline Frame with_header(const NetHeader& header, const Frame& frame) {
  Frame whole(sizeof header + frame.size());
  std::memcpy(whole.data(), &header, sizeof header);
  std::ranges::copy(frame, whole.begin() + sizeof header);
  return whole;
}

inline NetHeader header_of(const Frame& whole) {
  NetHeader header{};
  std::memcpy(&header, whole.data(), sizeof header);
  return header;
}
inline Frame frame_of(const Frame& whole) { return {whole.begin() + sizeof(NetHeader), whole.end()}; }

struct NetSetup {
  Ring ring = Ring::Split;
  std::uint64_t features = kNetMergeableBuffers | kNetControlQueue;  ///< kEventIndex is added
  std::uint16_t pairs = 1;
  std::uint16_t size = 64;
};

class NetBench {
 public:
  explicit NetBench(const NetSetup& setup)
      : driver{{.size = setup.size,
                .ring = setup.ring,
                .features = setup.features | kEventIndex,
                .queues = static_cast<std::uint16_t>(2 * setup.pairs + 1)}} {
    auto made = std::make_unique<FakeBackend>(setup.pairs);
    backend = made.get();
    net = std::make_unique<Net>(loop, std::move(made), Net::Options{.mac = {0x52, 0x54, 0, 1, 2, 3}});
    std::promise<void> running;
    const Fd first = make_eventfd();
    loop.watch(first.get(), EPOLLIN, [&](std::uint32_t) {
      loop.unwatch(first.get());
      running.set_value();
    });
    signal_eventfd(first.get());
    thread_ = std::thread{[this] { loop.run(); }};
    running.get_future().wait();  // before that, calls are done at once and nothing else is
  }
  ~NetBench() {
    on_loop([this] { net->stop(); });
    loop.call([this] { loop.stop(); });
    thread_.join();
    net.reset();
  }
  NetBench(const NetBench&) = delete;
  NetBench& operator=(const NetBench&) = delete;

  void on_loop(const std::function<void()>& task) { loop.call(task); }
  /// Returns when the loop has handled what was ready, and what that made ready.
  void settle() {
    for (int i = 0; i < 50; ++i) {
      on_loop([] {});
    }
  }
  void start() {
    on_loop([this] { net->start(driver.features(), driver); });
  }
  void start_queue(std::uint16_t index) {
    on_loop([&] { net->start_queue(index, driver.make_queue(index), driver.kick_fd()); });
  }
  /// The device with the first pair, and the control queue where it is.
  void start_all() {
    start();
    start_queue(0);
    start_queue(1);
    start_queue(control);
  }
  void kick(std::uint16_t index) {
    on_loop([&] { net->notified(index); });
    settle();
  }
  void push(const Frame& frame, std::uint16_t pair = 0) {
    on_loop([&] { backend->push(frame, pair); });
    settle();
  }
  /// Sends header and frame as one buffer each, and waits for the device.
  void send(const NetHeader& header, const Frame& frame, std::uint16_t index = 1) {
    on_loop([&] { driver.chain(index).readable(header).readable(std::span{frame}).submit(); });
    kick(index);
  }
  [[nodiscard]] std::vector<Frame>& sent(std::uint16_t pair = 0) { return backend->pairs_[pair].from_guest; }
  void offer(std::uint32_t bytes, int buffers = 1, std::uint16_t index = 0) {
    on_loop([&] {
      for (int i = 0; i < buffers; ++i) {
        driver.chain(index).writable(bytes).submit();
      }
    });
    kick(index);
  }
  /// Sends a command and returns its answer; -1 when the device gave none.
  int command(std::span<const std::byte> request) {
    on_loop([&] { driver.chain(control).readable(request).writable(1).submit(); });
    kick(control);
    const auto used = driver.take_used(control);
    return used && used->written == 1 ? std::to_integer<int>(used->data[0][0]) : -1;
  }
  int command(std::initializer_list<int> request) {
    Frame bytes;
    for (const int byte : request) {
      bytes.push_back(static_cast<std::byte>(byte));
    }
    return command(std::span<const std::byte>{bytes});
  }
  /// The next frame that the driver gets, over as many buffers as its header says; empty when there is none.
  Frame take(std::uint16_t index = 0) {
    auto used = driver.take_used(index);
    if (!used) {
      return {};
    }
    Frame whole = used->bytes();
    if (whole.size() < sizeof(NetHeader)) {
      return whole;
    }
    for (int more = header_of(whole).num_buffers - 1; more > 0; --more) {
      used = driver.take_used(index);
      if (!used) {
        return {};
      }
      const auto part = used->bytes();
      whole.insert(whole.end(), part.begin(), part.end());
    }
    return whole;
  }

  EventLoop loop;
  FakeDriver driver;
  FakeBackend* backend = nullptr;
  std::unique_ptr<Net> net;
  std::uint16_t control = 2;

 private:
  std::thread thread_;
};

}  // namespace martlet::virtio
