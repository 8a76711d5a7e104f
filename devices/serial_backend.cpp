#include "devices/serial_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace martlet {
namespace {

// A guest that swallows input as fast as it comes must not keep the loop from its output.
constexpr int kReadsInARow = 64;

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span{text}); }

}  // namespace

SerialBackend::SerialBackend(EventLoop& loop, const SerialTarget& target, Hooks hooks)
    : loop_{loop}, hooks_{std::move(hooks)}, timer_{loop, [this] { tick(); }} {
  auto ends = open_ends(target);
  name_ = std::move(ends.name);
  pty_ = std::move(ends.pty);
  input_ = std::move(ends.input);
  output_ = std::move(ends.output);
  job_controlled_ = ends.job_controlled;
  if (target.kind == SerialTarget::Kind::Socket) {
    listener_.emplace(target.path);
    loop_.watch(listener_->fd(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
  }
  loop_.watch(wake_.get(), EPOLLIN, [this](std::uint32_t) { woken(); });
}

SerialBackend::~SerialBackend() {
  unwatch_input();
  unwatch_output();
  loop_.unwatch(wake_.get());
  if (listener_) {
    loop_.unwatch(listener_->fd());
  }
}

void SerialBackend::connect(SerialDevice& device) {
  device_ = &device;
  has_room();  // nothing is read, and no hook called, before the loop runs
}

void SerialBackend::put(std::byte byte) noexcept {
  bool wake = false;
  {
    const std::lock_guard lock{mutex_};
    if (inbox_.count == kInboxSize) {
      ++inbox_.lost;  // the loop gets no CPU: it has been woken at half this
      return;
    }
    inbox_.bytes[inbox_.count++] = byte;
    wake = !std::exchange(busy_, true) || inbox_.count == kInboxSize / 2;
  }
  if (wake) {
    signal_eventfd(wake_.get());
  }
}

void SerialBackend::has_room() noexcept {
  room_.store(true);
  signal_eventfd(wake_.get());
}

void SerialBackend::woken() {
  drain_counter(wake_.get());
  if (!ticking_) {
    {
      const std::lock_guard lock{mutex_};
      ticking_ = busy_;
    }
    if (ticking_) {
      timer_.start_periodic(kTick);
    }
  }
  collect();
  if (room_.exchange(false)) {
    pump_input();
  }
}

void SerialBackend::tick() {
  if (hooks_.drain) {
    hooks_.drain();
  }
  if (collect()) {
    quiet_ticks_ = 0;
    return;
  }
  if (pouring_ && ++quiet_ticks_ < kQuietTicks) {
    return;
  }
  {
    const std::lock_guard lock{mutex_};
    if (inbox_.count != 0) {
      return;  // it came just now, and did not wake us because we were busy
    }
    busy_ = false;
  }
  ticking_ = false;
  timer_.cancel();
  // Last, for what this hook still finds at KVM comes back to put() and begins the next busy phase.
  if (std::exchange(pouring_, false) && hooks_.busy) {
    hooks_.busy(false);
  }
}

/// Empties the inbox; false when there was nothing.
bool SerialBackend::collect() {
  {
    const std::lock_guard lock{mutex_};
    std::swap(inbox_, taken_);
  }
  const std::span<const std::byte> bytes{taken_.bytes.get(), std::exchange(taken_.count, 0)};
  const auto lost = std::exchange(taken_.lost, 0);
  if (bytes.empty()) {
    return false;
  }
  if (bytes.size() >= kPouring && ticking_ && !std::exchange(pouring_, true) && hooks_.busy) {
    hooks_.busy(true);
  }
  if (hooks_.observe) {
    hooks_.observe(bytes);
  }
  if (output_ || listener_) {
    keep(bytes);
    lost_ += lost;
  }
  send();
  return true;
}

/// Into the backlog; the newest bytes are dropped. Once some were, all are until send() has told of them.
void SerialBackend::keep(std::span<const std::byte> bytes) {
  backlog_.erase(backlog_.begin(), backlog_.begin() + static_cast<std::ptrdiff_t>(std::exchange(sent_, 0)));
  const auto fits = lost_ != 0 ? 0 : std::min(bytes.size(), kBacklogSize - backlog_.size());
  backlog_.insert(backlog_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(fits));
  lost_ += bytes.size() - fits;
}

void SerialBackend::send() {
  while (output_ && !output_watched_) {
    // Not as soon as one line fits: a slow reader would get a line about each few bytes.
    if (lost_ != 0 && backlog_.size() - sent_ <= kBacklogSize / 2) {
      const auto lost = std::exchange(lost_, 0);
      keep(as_bytes(fmt::format("\r\n[martlet: {} bytes of serial output lost: nobody read it]\r\n", lost)));
    }
    const auto rest = std::span<const std::byte>{backlog_}.subspan(sent_);
    if (rest.empty()) {
      backlog_.clear();
      sent_ = 0;
      return;
    }
    const auto written = output_.write(rest);
    if (written > 0) {
      sent_ += static_cast<std::size_t>(written);
    } else if (written == -EAGAIN) {
      output_watched_ = loop_.watch(output_.fd(), EPOLLOUT, [this](std::uint32_t) {
        unwatch_output();
        send();
      });
      return;
    } else if (written != -EINTR) {
      end_output(static_cast<int>(-written));
    }
  }
}

void SerialBackend::end_output(int error) {
  if (listener_) {
    client_left();  // what it has not taken waits for the next one
    return;
  }
  trouble_ = fmt::format("{}: {}: the guest's serial output went nowhere from then on", name_,
                         std::generic_category().message(error));
  unwatch_output();
  output_ = {};
  backlog_ = {};
  sent_ = 0;
  lost_ = 0;
}

std::size_t SerialBackend::finish(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  if (hooks_.drain) {
    hooks_.drain();
  }
  collect();
  while (output_watched_) {  // else it is all gone, or there is nowhere to go
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !output_.wait_writable(static_cast<int>(left.count()))) {
      break;
    }
    unwatch_output();
    send();
  }
  return backlog_.size() - sent_ + lost_;
}

void SerialBackend::type(std::span<const std::byte> bytes) {
  const auto fits = std::min(bytes.size(), kTypeAheadSize - std::min(kTypeAheadSize, waiting_.size()));
  waiting_.insert(waiting_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(fits));
  deliver();
}

void SerialBackend::resume_input() { pump_input(); }

void SerialBackend::deliver() {
  if (device_ != nullptr && !waiting_.empty()) {
    const auto taken = device_->receive(waiting_);
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
  }
}

/// Hands on input until there is none, or no room for it.
void SerialBackend::pump_input() {
  if (device_ == nullptr) {
    return;
  }
  deliver();
  std::array<std::byte, kTypeAheadSize> chunk{};
  for (int reads = 0; input_; ++reads) {
    std::size_t size = chunk.size();
    if (!hooks_.typed) {
      size = waiting_.empty() ? std::min(size, device_->room()) : 0;
    }
    if (size == 0 || in_background()) {
      pause_input();  // has_room() or resume_input() will bring us back
      return;
    }
    if (reads == kReadsInARow) {
      has_room();
      return;
    }
    const auto got = input_.read(std::span{chunk}.first(size));
    if (got == -EAGAIN) {
      watch_input(EPOLLIN);
      return;
    }
    if (got > 0) {
      const std::span<const std::byte> bytes{chunk.data(), static_cast<std::size_t>(got)};
      if (hooks_.typed) {
        hooks_.typed(bytes);
      } else {
        type(bytes);
      }
    } else if (got != -EINTR) {
      pause_input();  // for good, though a client that sends no more (nc -N) may still read
      if (!listener_) {
        input_ = {};
      }
      return;
    }
  }
}

/// A background job that reads from its terminal is stopped (SIGTTIN), and a VM should not be.
bool SerialBackend::in_background() const {
  if (!job_controlled_) {
    return false;
  }
  const auto foreground = ::tcgetpgrp(input_.fd());
  return foreground > 0 && foreground != ::getpgrp();
}

/// Of a client we still want to know when it leaves. (A pipe whose writer has left would tell for ever.)
void SerialBackend::pause_input() {
  if (listener_) {
    watch_input(0);
  } else {
    unwatch_input();
  }
}

void SerialBackend::watch_input(std::uint32_t events) {
  if (input_watched_) {
    loop_.change(input_.fd(), events);
    return;
  }
  input_watched_ = loop_.watch(input_.fd(), events, [this](std::uint32_t happened) {
    if (listener_ && (happened & EPOLLHUP) != 0) {
      client_left();
    } else {
      pump_input();
    }
  });
}

void SerialBackend::unwatch_input() {
  if (std::exchange(input_watched_, false)) {
    loop_.unwatch(input_.fd());
  }
}

void SerialBackend::unwatch_output() {
  if (std::exchange(output_watched_, false)) {
    loop_.unwatch(output_.fd());
  }
}

void SerialBackend::accept_client() {
  auto client = listener_->accept();
  if (!client) {
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
      trouble_ = fmt::format("{}: cannot accept clients any more: {}", name_, std::generic_category().message(errno));
      loop_.change(listener_->fd(), 0);
    }
    return;
  }
  loop_.change(listener_->fd(), 0);  // one client at a time: the next one waits in the listener's queue
  output_ = HostStream{duplicate(client.get())};
  input_ = HostStream{std::move(client)};
  send();
  pump_input();
}

/// What it said last is kept for the guest, so that the next client need not wait until the guest listens;
/// unless that is more than one could have typed ahead.
void SerialBackend::client_left() {
  unwatch_output();
  output_ = {};
  std::array<std::byte, kTypeAheadSize> chunk{};
  std::ptrdiff_t got = -EINTR;
  while ((got > 0 || got == -EINTR) && waiting_.size() < kTypeAheadSize) {
    got = input_.read(std::span{chunk}.first(kTypeAheadSize - waiting_.size()));
    waiting_.insert(waiting_.end(), chunk.begin(), chunk.begin() + std::max<std::ptrdiff_t>(got, 0));
  }
  unwatch_input();
  if (got <= 0 && got != -EINTR) {
    input_ = {};
    loop_.change(listener_->fd(), EPOLLIN);
  }
  deliver();
}

}  // namespace martlet
