#include "net/stream_backend.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kMostVectors = 1024;  // UIO_MAXIOV

/// Copies `bytes` to where `into` is, from its byte `at` on; what does not fit is cut off. Returns how many fitted.
std::size_t scatter(std::span<const std::byte> bytes, std::span<const iovec> into, std::size_t at) noexcept {
  const auto size = bytes.size();
  for (const auto& vector : into) {
    const auto skipped = std::min(at, vector.iov_len);
    const auto part = bytes.first(std::min(vector.iov_len - skipped, bytes.size()));
    if (!part.empty()) {
      std::memcpy(static_cast<std::byte*>(vector.iov_base) + skipped, part.data(), part.size());
    }
    at -= skipped;
    bytes = bytes.subspan(part.size());
  }
  return size - bytes.size();
}

}  // namespace

StreamBackend::StreamBackend(Fd socket, std::uint16_t mtu)
    : socket_{std::move(socket)},
      mtu_{mtu},
      in_(kLength + kMaxFrame + kLength),
      room_{check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")} {
  check(::fcntl(socket_.get(), F_SETFL, O_NONBLOCK), "fcntl");
  epoll_event nothing{};
  check(::epoll_ctl(room_.get(), EPOLL_CTL_ADD, socket_.get(), &nothing), "epoll_ctl");
  vectors_.reserve(kMostVectors);
  rest_.reserve(kLength + kMaxFrame);
}

// --- From the network

/// 0 when there is something, or what receive() is to return.
std::ptrdiff_t StreamBackend::read_more(std::size_t wanted) noexcept {
  const auto got = ::recv(socket_.get(), in_.data() + have_, wanted - have_, MSG_DONTWAIT);
  if (got > 0) {
    have_ += static_cast<std::size_t>(got);
    return 0;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return -EAGAIN;
  }
  return -ENODEV;
}

std::ptrdiff_t StreamBackend::receive(std::uint16_t /*pair*/, std::span<const iovec> into) noexcept {
  for (std::size_t wanted = kLength;;) {
    if (have_ >= kLength) {
      std::uint32_t length = 0;
      std::memcpy(&length, in_.data(), sizeof length);
      length = ntohl(length);
      if (length == 0 || length > kMaxFrame) {
        return -ENODEV;  // no frame: where the next one begins cannot be known
      }
      const std::size_t end = kLength + length;
      if (have_ >= end) {
        constexpr std::array<std::byte, kHeaderSize> kNoOffloads{};
        auto size = scatter(kNoOffloads, into, 0);
        size += scatter(std::span{in_}.subspan(kLength, length), into, kHeaderSize);
        std::memmove(in_.data(), in_.data() + end, have_ - end);
        have_ -= end;
        return static_cast<std::ptrdiff_t>(size);
      }
      wanted = end + kLength;
    }
    if (const auto result = read_more(wanted); result != 0) {
      return result;
    }
  }
}

// --- To the network

std::ptrdiff_t StreamBackend::send(std::uint16_t /*pair*/, std::span<const iovec> frame) noexcept {
  if (!send_rest()) {
    return -EAGAIN;
  }
  std::uint32_t length = 0;
  vectors_.assign(1, {.iov_base = &length, .iov_len = kLength});
  std::size_t skip = kHeaderSize;
  std::size_t size = 0;
  for (const auto& vector : frame) {
    const auto skipped = std::min(skip, vector.iov_len);
    skip -= skipped;
    if (skipped < vector.iov_len) {
      if (vectors_.size() == kMostVectors) {
        return -EMSGSIZE;
      }
      vectors_.push_back(
          {.iov_base = static_cast<std::byte*>(vector.iov_base) + skipped, .iov_len = vector.iov_len - skipped});
      size += vector.iov_len - skipped;
    }
  }
  if (size == 0 || size > kMaxFrame) {
    return -EMSGSIZE;
  }
  length = htonl(static_cast<std::uint32_t>(size));
  msghdr message{};
  message.msg_iov = vectors_.data();
  message.msg_iovlen = vectors_.size();
  const auto sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? -EAGAIN : -ENODEV;
  }
  auto done = static_cast<std::size_t>(sent);
  if (done < kLength + size) {
    for (const auto& vector : vectors_) {
      const auto gone = std::min(done, vector.iov_len);
      const auto* const bytes = static_cast<const std::byte*>(vector.iov_base);
      rest_.insert(rest_.end(), bytes + gone, bytes + vector.iov_len);
      done -= gone;
    }
    watch_for_room(EPOLLOUT);
  }
  return static_cast<std::ptrdiff_t>(kHeaderSize + size);
}

/// False when there is more to go than the socket takes now.
bool StreamBackend::send_rest() noexcept {
  if (rest_.empty()) {
    return true;
  }
  const auto sent = ::send(socket_.get(), rest_.data(), rest_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
    return false;
  }
  // Any other error: the other side has gone, and nothing of this matters.
  rest_.erase(rest_.begin(), sent < 0 ? rest_.end() : rest_.begin() + sent);
  if (rest_.empty()) {
    watch_for_room(0);
  }
  return rest_.empty();
}

bool StreamBackend::refresh_link() noexcept {
  [[maybe_unused]] const bool all = send_rest();
  return true;
}

void StreamBackend::watch_for_room(std::uint32_t events) noexcept {
  epoll_event wanted{};
  wanted.events = events;
  ::epoll_ctl(room_.get(), EPOLL_CTL_MOD, socket_.get(), &wanted);
}

}  // namespace martlet
