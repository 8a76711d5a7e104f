#include "devices/virtio/console_port.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

// What one port may do before the loop looks at the others, in bytes; each chain costs some, too.
constexpr std::size_t kBudget = 4U << 20U;
constexpr std::size_t kChainCost = 16U << 10U;
constexpr std::size_t kRingCost = kBudget / 8;  // full of malformed chains, which pop() gave back
// So much at most in one system call, however long the chain.
constexpr std::uint64_t kMostAtOnce = 1U << 20U;
using Parts = std::array<iovec, 64>;
constexpr int kReadsInARow = 64;
constexpr int kUselessBuffersInARow = 256;

std::optional<std::chrono::milliseconds> patience_of(ConsolePort::Role role, const SerialTarget& target) {
  if (target.kind == SerialTarget::Kind::Pty) {
    return ConsolePort::kPtyPatience;
  }
  if (role == ConsolePort::Role::Console) {
    return ConsolePort::kConsolePatience;
  }
  return std::nullopt;
}

}  // namespace

ConsolePort::ConsolePort(EventLoop& loop, const SerialTarget& target, Role role, Hooks hooks)
    : role_{role},
      hooks_{std::move(hooks)},
      patience_{patience_of(role, target)},
      host_{loop,
            target,
            {.readable = [this] { pump_input(); },
             .writable = [this] { transmit(); },
             .connected = [this](bool connected) { reader_changed(connected); }}} {
  if (patience_) {
    timer_.emplace(loop, [this] {
      waiting_ = false;
      unread_ = true;
      transmit();
    });
  }
  if (hooks_.typed) {
    host_.expect_input();
  }
}

// --- Output

void ConsolePort::start_transmit(std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  transmit_ = {.queue = std::move(queue), .kick = kick};
  transmit();
}

/// True when it had its turn and has more to do.
bool ConsolePort::transmit() noexcept {
  if (!transmit_.queue) {
    static_cast<void>(send_backlog());
    return false;
  }
  auto& queue = *transmit_.queue;
  queue.disable_notifications();
  std::size_t budget = kBudget;
  while (budget != 0) {
    if (!held_) {
      if (auto chain = queue.pop()) {
        held_.emplace(std::move(*chain));
      } else if (queue.enable_notifications()) {
        budget -= std::min(budget, kRingCost);
        continue;
      } else {
        if (send_backlog() != Reader::Slow && hooks_.sent) {
          hooks_.sent();
        }
        break;
      }
    }
    if (!send_held(budget)) {
      break;
    }
    queue.complete(std::move(held_->chain), 0);
    held_.reset();
    budget -= std::min(budget, kChainCost);
  }
  if (budget == 0) {
    signal_eventfd(transmit_.kick);  // we come back
  }
  queue.notify();
  tell_of_end();
  return budget == 0;
}

/// False when the host, or other devices, must have their turn first.
bool ConsolePort::send_held(std::size_t& budget) noexcept {
  auto& rest = held_->rest;
  while (rest.remaining() != 0) {
    if (budget == 0) {
      return false;
    }
    const auto window = static_cast<std::size_t>(std::min(rest.remaining(), kMostAtOnce));
    observe(window);
    auto reader = send_backlog();
    std::size_t done = 0;
    if (reader == Reader::Takes) {
      Parts parts;
      const auto written = host_.write(ChainReader{rest}.take(parts, window));
      reader = judge(written);
      done = static_cast<std::size_t>(std::max<std::ptrdiff_t>(written, 0));
      held_->begun = held_->begun || done != 0;
    }
    if (reader == Reader::Gone && held_->begun && role_ == Role::Stream) {
      lost_ever_ += rest.remaining();
      break;  // it makes no sense to anybody else
    }
    if (done == 0 && (role_ == Role::Console || reader == Reader::Gone || unread_)) {
      done = put_aside(window);
    }
    if (done == 0 && reader != Reader::Gone && !unread_) {
      wait_for_reader();
      return false;
    }
    if (done == 0) {
      done = window;
      lose(done);
    }
    rest.skip(done);
    budget -= std::min(budget, done);
  }
  return true;
}

/// Ahead of what is written, but no further: a chain may be gigabytes long.
void ConsolePort::observe(std::size_t window) noexcept {
  std::array<std::byte, 4096> copy{};  // the guest may change its own at any time
  const auto beyond = held_->rest.remaining() - window;
  while (hooks_.observe && held_->unseen.remaining() > beyond) {
    const auto most = std::min<std::uint64_t>(copy.size(), held_->unseen.remaining() - beyond);
    const auto got = held_->unseen.copy(std::span{copy}.first(static_cast<std::size_t>(most)));
    hooks_.observe(std::span{copy}.first(got));
  }
}

std::size_t ConsolePort::put_aside(std::size_t window) noexcept {
  if (lost_ != 0) {
    return 0;  // not after a gap that nobody was told of
  }
  return ChainReader{held_->rest}.copy(backlog_.extend(std::min(window, backlog_.room())));
}

ConsolePort::Reader ConsolePort::send_backlog() noexcept {
  for (;;) {
    // Not as soon as one line fits: a slow reader would get a line about each few bytes.
    if (lost_ != 0 && backlog_.size() <= kBacklogSize / 2) {
      const auto lost = std::exchange(lost_, 0);
      if (role_ == Role::Console) {
        const auto line = fmt::format("\r\n[martlet: {} bytes of console output lost: nobody read it]\r\n", lost);
        backlog_.push(std::as_bytes(std::span{line}));
      }
    }
    if (backlog_.empty()) {
      return Reader::Takes;
    }
    const auto bytes = backlog_.bytes();
    const iovec part{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    const auto written = host_.write({&part, 1});
    if (const auto reader = judge(written); reader != Reader::Takes) {
      return reader;
    }
    backlog_.pop(static_cast<std::size_t>(written));
  }
}

ConsolePort::Reader ConsolePort::judge(std::ptrdiff_t written) noexcept {
  if (written <= 0) {
    return written == -EPIPE ? Reader::Gone : Reader::Slow;
  }
  unread_ = false;
  stop_waiting();
  return Reader::Takes;
}

void ConsolePort::wait_for_reader() noexcept {
  if (timer_ && !std::exchange(waiting_, true)) {
    timer_->start_once(*patience_);
  }
}

void ConsolePort::stop_waiting() noexcept {
  if (std::exchange(waiting_, false)) {
    timer_->cancel();
  }
}

void ConsolePort::lose(std::uint64_t bytes) noexcept {
  lost_ += bytes;
  lost_ever_ += bytes;
}

void ConsolePort::reader_changed(bool connected) noexcept {
  if (hooks_.connected) {
    hooks_.connected(connected);
  }
  transmit();
  pump_input();
}

/// A one-way stream has ended, in whatever we just did with it. (Clients that come and go tell by themselves.)
void ConsolePort::tell_of_end() noexcept {
  if (!host_.one_way() || host_.connected() || std::exchange(end_told_, true)) {
    return;
  }
  if (hooks_.connected) {
    hooks_.connected(false);
  }
}

/// What the guest has handed over is output, though it takes the queue back now: its last words, perhaps.
void ConsolePort::stop_transmit() noexcept {
  if (held_) {
    const auto rest = held_->rest.remaining();
    const auto window = static_cast<std::size_t>(std::min(rest, kMostAtOnce));
    observe(window);
    if (const auto kept = put_aside(window); kept < rest) {
      lose(rest - kept);
    }
    held_.reset();
    stop_waiting();
  }
  transmit_ = {};
}

void ConsolePort::put(std::span<const std::byte> bytes) noexcept {
  if (hooks_.observe) {
    hooks_.observe(bytes);
  }
  const auto fits = lost_ != 0 ? 0 : std::min(bytes.size(), backlog_.room());
  backlog_.push(bytes.first(fits));
  if (fits < bytes.size()) {
    lose(bytes.size() - fits);
  }
  static_cast<void>(send_backlog());
}

std::uint64_t ConsolePort::finish(std::chrono::milliseconds patience) noexcept {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const bool more = transmit();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || (!more && ((backlog_.empty() && !held_) || !host_.wait_writable(left)))) {
      break;
    }
  }
  auto lost = lost_ever_ + backlog_.size() + (held_ ? held_->rest.remaining() : 0);
  while (auto chain = transmit_.queue ? transmit_.queue->pop() : std::nullopt) {
    lost += chain->readable_bytes();
  }
  return lost;
}

// --- Input

void ConsolePort::start_receive(std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  receive_ = {.queue = std::move(queue), .kick = kick};
  pump_input();
}

void ConsolePort::stop_receive() noexcept {
  buffer_.reset();
  receive_ = {};
}

void ConsolePort::set_open(bool open) noexcept {
  if (std::exchange(open_, open) == open) {
    return;
  }
  if (hooks_.opened) {
    hooks_.opened(open);
  }
  pump_input();
}

/// Hands on input until there is none, or no room for it.
void ConsolePort::pump_input() noexcept {
  deliver_typed();
  if (hooks_.has_room) {
    if (std::exchange(refused_, false)) {
      hooks_.has_room();
    }
    return;
  }
  std::array<std::byte, kTypeAheadSize> keys{};
  Parts parts;
  for (int reads = 0;; ++reads) {
    const auto to = next_destination();
    if (to == Destination::None) {
      break;
    }
    if (reads == kReadsInARow) {
      if (receive_.queue) {
        signal_eventfd(receive_.kick);
      }
      break;
    }
    std::span<const iovec> into{parts.data(), 1};
    if (to == Destination::Guest) {
      into = ChainWriter{*buffer_}.take(parts, kMostAtOnce);
    } else {
      parts[0] = {.iov_base = keys.data(), .iov_len = to == Destination::Owner ? keys.size() : typed_.room()};
    }
    const auto got = host_.read(into);
    if (got == 0) {
      break;
    }
    if (to == Destination::Guest) {
      give_back(got);
    } else if (to == Destination::Owner) {
      hooks_.typed(std::span{keys}.first(got));
    } else {
      typed_.push(std::span{keys}.first(got));
    }
  }
  if (receive_.queue) {
    receive_.queue->notify();
  }
  tell_of_end();
}

/// Where input from the host goes now.
ConsolePort::Destination ConsolePort::next_destination() noexcept {
  if (hooks_.typed) {
    return Destination::Owner;
  }
  if (!open_) {
    host_.refuse_input();
    return Destination::None;
  }
  if (typed_.empty() && find_buffer()) {
    return Destination::Guest;
  }
  if (host_.hung_up() && typed_.room() != 0) {
    return Destination::TypeAhead;  // so that the next client need not wait until the guest listens
  }
  host_.pause_input();  // receive_kicked() will bring us back
  return Destination::None;
}

/// True when buffer_ has room for input.
bool ConsolePort::find_buffer() noexcept {
  if (!open_ || !receive_.queue) {
    return false;
  }
  auto& queue = *receive_.queue;
  for (int useless = 0; !buffer_; ++useless) {
    if (useless == kUselessBuffersInARow) {
      signal_eventfd(receive_.kick);
      return false;
    }
    queue.disable_notifications();
    buffer_ = queue.pop();
    if (!buffer_ && !queue.enable_notifications()) {
      return false;
    }
    if (buffer_ && buffer_->writable_bytes() == 0) {
      give_back(0);
    }
  }
  return true;
}

void ConsolePort::give_back(std::size_t written) noexcept {
  receive_.queue->complete(std::move(*buffer_), static_cast<std::uint32_t>(written));
  buffer_.reset();
}

std::size_t ConsolePort::room() noexcept {
  if (find_buffer()) {
    return buffer_->writable_bytes();
  }
  refused_ = true;
  return 0;
}

std::size_t ConsolePort::receive(std::span<const std::byte> bytes) noexcept {
  std::size_t taken = 0;
  while (taken < bytes.size() && find_buffer()) {
    const auto part = ChainWriter{*buffer_}.copy(bytes.subspan(taken));
    give_back(part);
    taken += part;
  }
  refused_ = refused_ || taken < bytes.size();
  if (receive_.queue) {
    receive_.queue->notify();
  }
  return taken;
}

void ConsolePort::type(std::span<const std::byte> bytes) noexcept {
  typed_.push(bytes.first(std::min(bytes.size(), typed_.room())));
  deliver_typed();
}

void ConsolePort::deliver_typed() noexcept {
  if (!typed_.empty()) {
    typed_.pop(receive(typed_.bytes()));
  }
}

}  // namespace martlet::virtio
