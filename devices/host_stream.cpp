#include "devices/host_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace martlet {
namespace {

bool ready(int fd, short events, int milliseconds) {
  pollfd wait{.fd = fd, .events = events, .revents = 0};
  return ::poll(&wait, 1, milliseconds) > 0;  // an error or a hang-up counts: the call itself will tell
}

std::ptrdiff_t or_errno(ssize_t result) { return result < 0 ? -errno : result; }

/// A pipe's or a terminal's name leads to itself again. A pty's master's does not: it makes a new pty.
bool can_be_reopened(int fd, const struct stat& status) {
  int pty_number = 0;
  return S_ISFIFO(status.st_mode) || (::isatty(fd) == 1 && ::ioctl(fd, TIOCGPTN, &pty_number) != 0);
}

msghdr message_of(std::span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  return message;
}

bool is_socket(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

}  // namespace

HostStream::HostStream(Fd fd) : fd_{std::move(fd)}, way_{is_socket(fd_.get()) ? Way::Socket : Way::NonBlocking} {}

HostStream HostStream::shared(int fd, Direction direction) {
  HostStream stream;
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return stream;
  }
  if (can_be_reopened(fd, status)) {
    const int access = direction == Direction::In ? O_RDONLY : O_WRONLY;
    stream.fd_ = Fd{::open(fmt::format("/proc/self/fd/{}", fd).c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  }
  if (!stream.fd_) {  // another user's pipe, no /proc, or a kind that needs no reopening
    stream.fd_ = duplicate(fd);
    const bool never_waits = S_ISREG(status.st_mode);
    stream.way_ = is_socket(fd) ? Way::Socket : never_waits ? Way::NonBlocking : Way::PollFirst;
  }
  return stream;
}

std::ptrdiff_t HostStream::read(std::span<std::byte> into) const noexcept {
  const iovec one{.iov_base = into.data(), .iov_len = into.size()};
  return read(std::span{&one, 1});
}

std::ptrdiff_t HostStream::write(std::span<const std::byte> bytes) const noexcept {
  const iovec one{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  return write(std::span{&one, 1});
}

std::ptrdiff_t HostStream::read(std::span<const iovec> into) const noexcept {
  if (way_ == Way::Socket) {
    auto message = message_of(into);
    return or_errno(::recvmsg(fd(), &message, MSG_DONTWAIT));
  }
  if (way_ == Way::PollFirst && !ready(fd(), POLLIN, 0)) {
    return -EAGAIN;
  }
  return or_errno(::readv(fd(), into.data(), static_cast<int>(into.size())));
}

std::ptrdiff_t HostStream::write(std::span<const iovec> parts) const noexcept {
  if (way_ == Way::Socket) {
    const auto message = message_of(parts);
    return or_errno(::sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  if (way_ == Way::PollFirst) {
    if (!ready(fd(), POLLOUT, 0)) {
      return -EAGAIN;
    }
    const auto& first = parts.front();  // a pipe that is ready takes as much as PIPE_BUF
    return or_errno(::write(fd(), first.iov_base, std::min<std::size_t>(first.iov_len, PIPE_BUF)));
  }
  return or_errno(::writev(fd(), parts.data(), static_cast<int>(parts.size())));
}

bool HostStream::wait_writable(int milliseconds) const noexcept { return ready(fd(), POLLOUT, milliseconds); }

}  // namespace martlet
