#pragma once
// A vhost-user back-end for tests: it maps the guest's memory and moves frames when told to, or answers as a test
// wants.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "devices/virtio/net_wire.h"
#include "devices/virtio/wire.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

struct Mapping {
  std::uint64_t guest;
  std::uint64_t size;
  std::uint64_t user;
  std::byte* bytes;  // where `guest` is seen here
};

struct Received {
  std::uint32_t request = 0;
  std::uint32_t flags = 0;
  std::vector<std::byte> payload;
  std::vector<Fd> files;

  template <class T>
  [[nodiscard]] T at(std::size_t offset) const {
    T value{};
    if (offset + sizeof value <= payload.size()) {
      std::memcpy(&value, payload.data() + offset, sizeof value);
    }
    return value;
  }
};

inline constexpr std::uint64_t kProtocolFeatures = 1ULL << 30U;

/// Listens, and serves one front-end on a thread of its own.
class FakeBackEnd {
 public:
  /// What is done instead of the right answer; true if it was done.
  using Twist = std::function<bool(FakeBackEnd&, const Received&)>;

  explicit FakeBackEnd(Twist twist = {}, std::uint64_t features = kVersion1 | kProtocolFeatures | kEventIndex |
                                                                  std::uint64_t{kNetMultiQueue})
      : features_{features}, twist_{std::move(twist)} {
    path = ::testing::TempDir() + "vhost-user-" + std::to_string(::getpid());
    ::unlink(path.c_str());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    listener_ = Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    check(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
    check(::listen(listener_.get(), 1), "listen");
    thread_ = std::thread{[this] { serve(); }};
  }
  ~FakeBackEnd() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    hang_up();
    thread_.join();
    for (const auto& mapping : mappings) {
      ::munmap(mapping.bytes, mapping.size);
    }
    ::unlink(path.c_str());
  }

  void hang_up() { ::shutdown(socket_.load(), SHUT_RDWR); }
  void say(std::uint32_t request, std::span<const std::byte> payload, std::uint32_t flags = 5,
           std::optional<std::uint32_t> size = {}, std::size_t files = 0) {
    const std::array<std::uint32_t, 3> header{request, flags,
                                              size.value_or(static_cast<std::uint32_t>(payload.size()))};
    std::array<iovec, 2> parts{iovec{const_cast<std::uint32_t*>(header.data()), sizeof header},
                               iovec{const_cast<std::byte*>(payload.data()), payload.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(64 * sizeof(int))> control{};
    if (files != 0) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(files * sizeof(int));
      auto* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(files * sizeof(int));
      for (std::size_t i = 0; i < files; ++i) {
        const int fd = listener_.get();
        std::memcpy(CMSG_DATA(rights) + i * sizeof fd, &fd, sizeof fd);
      }
    }
    ::sendmsg(socket_.load(), &message, MSG_NOSIGNAL);
  }
  template <class T>
  void say_value(std::uint32_t request, const T& value) {
    say(request, std::as_bytes(std::span{&value, 1}));
  }

  std::string path;
  std::atomic<unsigned> enabled = 0;  // bit mask of rings
  std::atomic<std::uint64_t> accepted = 0;
  std::vector<Mapping> mappings;

 private:
  struct Vring {
    std::uint32_t size = 0;
    std::uint64_t descriptors = 0, used = 0, avail = 0;
    std::uint16_t next = 0;
    Fd kick, call, error;
  };

  [[nodiscard]] bool read_message(Received& into) {
    std::array<std::uint32_t, 3> header{};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(16 * sizeof(int))> control{};
    iovec part{header.data(), sizeof header};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(socket_.load(), &message, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof header) {
      return false;
    }
    into = {.request = header[0], .flags = header[1]};
    if (auto* const rights = CMSG_FIRSTHDR(&message)) {
      for (std::size_t i = 0; i < (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof fd, sizeof fd);
        into.files.emplace_back(fd);
      }
    }
    into.payload.resize(header[2]);
    return header[2] == 0 || ::recv(socket_.load(), into.payload.data(), header[2], MSG_WAITALL) == header[2];
  }

  void serve() {
    const Fd socket{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
    socket_ = socket.get();
    Received received;
    while (socket && read_message(received)) {
      if (twist_ && twist_(*this, received)) {
        continue;
      }
      handle(received);
    }
    ::shutdown(socket.get(), SHUT_RDWR);
    socket_ = -1;
  }

  void handle(Received& received) {
    const auto index = received.at<std::uint32_t>(0) % 8;
    switch (received.request) {
      case 1:
        say_value(1, features_);
        break;
      case 2:
        accepted = received.at<std::uint64_t>(0);
        break;
      case 5:
        map(received);
        break;
      case 8:
        rings_[index].size = received.at<std::uint32_t>(4);
        break;
      case 9:
        rings_[index].descriptors = received.at<std::uint64_t>(8);
        rings_[index].used = received.at<std::uint64_t>(16);
        rings_[index].avail = received.at<std::uint64_t>(24);
        break;
      case 10:
        rings_[index].next = received.at<std::uint16_t>(4);
        break;
      case 11:
        enabled &= ~(1U << index);
        say_value(11, std::array<std::uint32_t, 2>{index, rings_[index].next});
        break;
      case 12:
        rings_[index].kick = std::move(received.files.at(0));
        break;
      case 13:
        rings_[index].call = std::move(received.files.at(0));
        break;
      case 14:
        rings_[index].error = std::move(received.files.at(0));
        break;
      case 15:
        say_value(15, std::uint64_t{1U | 8U | 16U});
        break;
      case 17:
        say_value(17, std::uint64_t{2});
        break;
      case 18:
        if (received.at<std::uint32_t>(4) != 0) {
          enabled |= 1U << index;
        } else {
          enabled &= ~(1U << index);
        }
        break;
      default:
        break;
    }
  }

  void map(Received& received) {
    for (std::size_t i = 0; i < received.at<std::uint32_t>(0); ++i) {
      const auto at = 8 + 32 * i;
      const auto size = received.at<std::uint64_t>(at + 8);
      void* const bytes = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, received.files.at(i).get(),
                                 static_cast<off_t>(received.at<std::uint64_t>(at + 24)));
      mappings.push_back({.guest = received.at<std::uint64_t>(at),
                          .size = size,
                          .user = received.at<std::uint64_t>(at + 16),
                          .bytes = bytes == MAP_FAILED ? nullptr : static_cast<std::byte*>(bytes)});
    }
    if ((received.flags & 8U) != 0) {
      say_value(5, std::uint64_t{0});
    }
  }

  [[nodiscard]] std::byte* find(std::uint64_t address, std::uint64_t Mapping::*base) const {
    for (const auto& mapping : mappings) {
      if (address >= mapping.*base && address - mapping.*base < mapping.size) {
        return mapping.bytes + (address - mapping.*base);
      }
    }
    throw std::runtime_error{"an address outside of the memory that was handed over"};
  }
  template <class T>
  T& user(std::uint64_t address) const {
    return *reinterpret_cast<T*>(find(address, &Mapping::user));
  }

 public:
  /// As when it cannot follow the ring.
  void fail(std::uint32_t ring) { signal_eventfd(rings_[ring].error.get()); }
  /// One frame from ring 1 to ring 0, as a switch would: on the caller's thread, while nobody else uses the rings.
  void echo() {
    auto& from = rings_[1];
    auto& to = rings_[0];
    ASSERT_EQ(drain_counter(from.kick.get()), 1U);
    const auto source = take(from);
    const auto target = take(to);
    const auto length = std::min(source.second.len, target.second.len);
    std::memcpy(find(target.second.addr, &Mapping::guest), find(source.second.addr, &Mapping::guest), length);
    give(from, source.first, 0);
    give(to, target.first, length);
  }

 private:
  std::pair<std::uint16_t, SplitDescriptor> take(Vring& ring) const {
    const auto head = user<std::uint16_t>(ring.avail + 4 + 2ULL * (ring.next++ % ring.size));
    return {head, user<SplitDescriptor>(ring.descriptors + 16ULL * head)};
  }
  void give(Vring& ring, std::uint16_t head, std::uint32_t length) const {
    auto& index = user<std::uint16_t>(ring.used + 2);
    user<UsedElement>(ring.used + 4 + 8ULL * (index % ring.size)) = {.id = head, .len = length};
    std::atomic_ref{index}.store(static_cast<std::uint16_t>(index + 1), std::memory_order_release);
    signal_eventfd(ring.call.get());
  }

  std::uint64_t features_;
  Twist twist_;
  Fd listener_;
  std::atomic<int> socket_ = -1;
  std::map<std::uint32_t, Vring> rings_;
  std::thread thread_;
};

}  // namespace martlet::virtio
