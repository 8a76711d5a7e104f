#include "devices/host_port.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

std::ptrdiff_t size_of(std::span<const iovec> parts) noexcept {
  std::size_t size = 0;
  for (const auto& part : parts) {
    size += part.iov_len;
  }
  return static_cast<std::ptrdiff_t>(size);
}

}  // namespace

HostPort::HostPort(EventLoop& loop, const SerialTarget& target, Hooks hooks) : loop_{loop}, hooks_{std::move(hooks)} {
  auto ends = open_ends(target);
  name_ = std::move(ends.name);
  pty_ = std::move(ends.pty);
  input_ = std::move(ends.input);
  output_ = std::move(ends.output);
  job_controlled_ = ends.job_controlled;
  one_way_ = target.one_way();
  ended_ = one_way_ && !input_ && !output_;
  if (target.kind == SerialTarget::Kind::Socket) {
    listener_.emplace(target.path);
    loop_.watch(listener_->fd(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
  }
}

HostPort::~HostPort() {
  unwatch_input();
  unwatch_output();
  if (listener_) {
    loop_.unwatch(listener_->fd());
  }
}

std::size_t HostPort::read(std::span<const iovec> into) noexcept {
  if (!input_ || in_background()) {
    pause_input();
    return 0;
  }
  std::ptrdiff_t got = -EINTR;
  while (got == -EINTR) {
    got = input_.read(into);
  }
  if (got > 0) {
    return static_cast<std::size_t>(got);
  }
  if (hung_up_) {
    client_left();
  } else if (got == -EAGAIN) {
    watch_input(EPOLLIN);
  } else {
    pause_input();  // for good, though a client that sends no more (nc -N) may still read
    if (!listener_) {
      input_ = {};
      ended_ = one_way_;
    }
  }
  return 0;
}

void HostPort::expect_input() noexcept {
  if (input_ && !listener_) {
    watch_input(EPOLLIN);
  }
}

/// Of a client we still want to know when it leaves. (A pipe whose writer has left would tell for ever.)
void HostPort::pause_input() noexcept {
  if (listener_ && input_ && !hung_up_) {
    watch_input(0);
  } else {
    unwatch_input();
  }
}

void HostPort::refuse_input() noexcept {
  pause_input();
  if (hung_up_) {
    client_left();
  }
}

std::ptrdiff_t HostPort::write(std::span<const iovec> parts) noexcept {
  if (!output_) {
    return listener_ ? -EPIPE : size_of(parts);
  }
  if (output_watched_) {
    return -EAGAIN;  // epoll will tell
  }
  std::ptrdiff_t written = -EINTR;
  while (written == -EINTR) {
    written = output_.write(parts);
  }
  if (written == -EAGAIN) {
    watch_output();
  } else if (written < 0) {
    end_output(static_cast<int>(-written));
    return listener_ ? -EPIPE : size_of(parts);
  }
  return written;
}

bool HostPort::wait_writable(std::chrono::milliseconds patience) noexcept {
  if (!output_ || !output_.wait_writable(static_cast<int>(patience.count()))) {
    return false;
  }
  unwatch_output();
  return true;
}

/// A background job that reads from its terminal is stopped (SIGTTIN), and a VM should not be.
bool HostPort::in_background() const noexcept {
  if (!job_controlled_) {
    return false;
  }
  const auto foreground = ::tcgetpgrp(input_.fd());
  return foreground > 0 && foreground != ::getpgrp();
}

// epoll refuses when the host is out of memory or of watches: this direction ends then, the guest goes on.

void HostPort::watch_input(std::uint32_t events) noexcept {
  try {
    if (input_watched_) {
      loop_.change(input_.fd(), events);
      return;
    }
    input_watched_ = loop_.watch(input_.fd(), events, [this](std::uint32_t happened) {
      if (listener_ && (happened & (EPOLLHUP | EPOLLERR)) != 0) {
        client_hung_up();
      } else {
        hooks_.readable();
      }
    });
  } catch (const HostError& error) {
    trouble_ = fmt::format("{}: no input from now on: {}", name_, error.what());
  }
}

void HostPort::watch_output() noexcept {
  try {
    output_watched_ = loop_.watch(output_.fd(), EPOLLOUT, [this](std::uint32_t) {
      unwatch_output();
      hooks_.writable();
    });
  } catch (const HostError&) {
    end_output(ENOMEM);
  }
}

void HostPort::unwatch_input() noexcept {
  if (std::exchange(input_watched_, false)) {
    loop_.unwatch(input_.fd());
  }
}

void HostPort::unwatch_output() noexcept {
  if (std::exchange(output_watched_, false)) {
    loop_.unwatch(output_.fd());
  }
}

void HostPort::end_output(int error) noexcept {
  unwatch_output();
  output_ = {};
  ended_ = one_way_;
  if (!listener_ && (!one_way_ || error != EPIPE)) {  // a client's leaving is no trouble
    trouble_ = fmt::format("{}: {}: the guest's output went nowhere from then on", name_,
                           std::generic_category().message(error));
  }
}

void HostPort::accept_client() noexcept {
  auto client = listener_->accept();
  if (!client) {
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
      trouble_ = fmt::format("{}: cannot accept clients any more: {}", name_, std::generic_category().message(errno));
      listen_again(false);
    }
    return;
  }
  try {
    output_ = HostStream{duplicate(client.get())};
  } catch (const HostError& error) {
    trouble_ = fmt::format("{}: a client was turned away: {}", name_, error.what());
    return;
  }
  listen_again(false);  // one client at a time: the next one waits in the listener's queue
  input_ = HostStream{std::move(client)};
  pause_input();
  hooks_.connected(true);
}

void HostPort::listen_again(bool again) noexcept {
  try {
    loop_.change(listener_->fd(), again ? EPOLLIN : 0U);
  } catch (const HostError&) {  // the listener is ours and watched: epoll has no reason to refuse
  }
}

/// It wants no more output. What it said last stays to be read.
void HostPort::client_hung_up() {
  unwatch_input();
  unwatch_output();
  output_ = {};
  hung_up_ = true;
  hooks_.readable();
}

void HostPort::client_left() noexcept {
  unwatch_input();
  input_ = {};
  hung_up_ = false;
  listen_again(true);
  hooks_.connected(false);
}

}  // namespace martlet
