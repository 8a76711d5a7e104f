#include "net/stream_backend.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "net/options.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kHeader = NetBackend::kHeaderSize;

std::string message(const std::string& frame) {
  const std::uint32_t length = htonl(static_cast<std::uint32_t>(frame.size()));
  return std::string{reinterpret_cast<const char*>(&length), sizeof length} + frame;
}

std::string frame_of(std::size_t size, unsigned seed = 0) {
  std::string frame(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    frame[i] = static_cast<char>(i * 7 + (i >> 8U) + seed);
  }
  return frame;
}

struct Line {
  Line() {
    std::array<int, 2> ends{};
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    peer = Fd{ends[1]};
    const int small = 1;  // the kernel's minimum
    ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    backend.emplace(Fd{ends[0]}, std::uint16_t{1500});
  }
  void type(const std::string& bytes) const {
    ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  /// What the peer can read now.
  std::string heard() const {
    std::string bytes(1U << 20U, '\0');
    const auto got = ::recv(peer.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  std::ptrdiff_t send(const std::string& frame) {
    std::string whole = std::string(kHeader, '\xee') + frame;
    const std::size_t middle = kHeader + frame.size() / 2;
    const std::array<iovec, 3> pieces{
        {{whole.data(), 5}, {whole.data() + 5, middle - 5}, {whole.data() + middle, whole.size() - middle}}};
    return backend->send(0, pieces);
  }
  /// A frame, or the error.
  std::string receive(std::size_t room = kHeader + NetBackend::kMaxFrame) {
    std::string whole(room, '\xee');
    const std::array<iovec, 2> into{{{whole.data(), 7}, {whole.data() + 7, whole.size() - 7}}};
    const auto got = backend->receive(0, into);
    if (got < 0) {
      return std::strerror(static_cast<int>(-got));
    }
    EXPECT_EQ(whole.substr(0, kHeader), std::string(kHeader, '\0'));
    return whole.substr(kHeader, static_cast<std::size_t>(got) - kHeader);
  }
  [[nodiscard]] static bool ready(int fd, short events) {
    pollfd wanted{.fd = fd, .events = events, .revents = 0};
    return ::poll(&wanted, 1, 0) == 1;
  }

  Fd peer;
  std::optional<StreamBackend> backend;
};

const std::string kNotNow = std::strerror(EAGAIN);
const std::string kGone = std::strerror(ENODEV);

TEST(StreamBackend, HasNoOffloadsAndOnePair) {
  Line line;
  EXPECT_EQ(line.backend->pairs(), 1);
  EXPECT_EQ(line.backend->offloads(), 0U);
  EXPECT_EQ(line.backend->mtu(), 1500);
  EXPECT_EQ(line.backend->vhost_fd(0), -1);
  EXPECT_TRUE(line.backend->set_offloads(0));
  EXPECT_FALSE(line.backend->set_offloads(kChecksum));
  EXPECT_FALSE(line.backend->enable_pairs(2));
}

TEST(StreamBackend, TakesFramesHoweverTheyAreCut) {
  Line line;
  const auto first = frame_of(100);
  const auto second = frame_of(NetBackend::kMaxFrame, 1);
  EXPECT_EQ(line.receive(), kNotNow);
  for (const char byte : message(first)) {
    EXPECT_EQ(line.receive(), kNotNow);
    line.type(std::string{byte});
  }
  EXPECT_EQ(line.receive(), first);
  EXPECT_EQ(line.receive(), kNotNow);
  // Two at once: what is not taken yet can be seen from outside.
  line.type(message(first) + message(second) + message(first).substr(0, 50));
  EXPECT_EQ(line.receive(), first);
  EXPECT_TRUE(Line::ready(line.backend->fd(0), POLLIN));
  EXPECT_EQ(line.receive(), second);
  EXPECT_TRUE(Line::ready(line.backend->fd(0), POLLIN));
  EXPECT_EQ(line.receive(), kNotNow);
  EXPECT_FALSE(Line::ready(line.backend->fd(0), POLLIN));
  line.type(message(first).substr(50));
  EXPECT_EQ(line.receive(kHeader + 60), first.substr(0, 60));  // cut off
  EXPECT_EQ(line.receive(), kNotNow);
}

TEST(StreamBackend, SendsTheRestOfAFrameByItself) {
  Line line;
  const auto frame = frame_of(60000);
  ASSERT_EQ(line.send(frame), static_cast<std::ptrdiff_t>(kHeader + frame.size()));
  EXPECT_EQ(line.send(frame), -EAGAIN);  // the first has not gone yet
  std::string heard;
  while (heard.size() < message(frame).size()) {
    const auto part = line.heard();
    if (part.empty()) {
      ASSERT_TRUE(Line::ready(line.backend->link_fd(), POLLIN)) << heard.size();
      EXPECT_TRUE(line.backend->refresh_link());
    }
    heard += part;
  }
  EXPECT_EQ(heard, message(frame));
  EXPECT_FALSE(Line::ready(line.backend->link_fd(), POLLIN));
}

TEST(StreamBackend, AReaderThatStopsStopsTheSenderOnly) {
  Line line;
  std::string expected;
  std::string heard;
  for (unsigned number = 0; number < 1000;) {
    const auto frame = frame_of(60 + number * 31 % 9000, number);
    const auto result = line.send(frame);
    if (result == -EAGAIN) {
      heard += line.heard();
      continue;
    }
    ASSERT_EQ(result, static_cast<std::ptrdiff_t>(kHeader + frame.size()));
    expected += message(frame);
    ++number;
  }
  while (heard.size() < expected.size()) {
    heard += line.heard();
    EXPECT_TRUE(line.backend->refresh_link());
  }
  EXPECT_TRUE(heard == expected);
}

TEST(StreamBackend, APeerThatTalksNonsenseIsGone) {
  for (const std::uint32_t length : {0U, std::uint32_t{NetBackend::kMaxFrame} + 1, 0xffffffffU}) {
    Line line;
    const auto bytes = htonl(length);
    line.type(message(frame_of(60)) + std::string{reinterpret_cast<const char*>(&bytes), sizeof bytes});
    EXPECT_EQ(line.receive(), frame_of(60));
    EXPECT_EQ(line.receive(), kGone);
    EXPECT_EQ(line.receive(), kGone);
  }
}

TEST(StreamBackend, APeerThatEndsIsGone) {
  Line line;
  line.peer = Fd{};
  EXPECT_EQ(line.receive(), kGone);
  EXPECT_EQ(line.send(frame_of(60)), -ENODEV);  // and no SIGPIPE
  EXPECT_TRUE(Line::ready(line.backend->fd(0), 0)) << "a hang-up is what the device sees";
  Line busy;
  ASSERT_GT(busy.send(frame_of(60000)), 0);
  busy.peer = Fd{};
  EXPECT_TRUE(busy.backend->refresh_link());
  EXPECT_EQ(busy.send(frame_of(60)), -ENODEV);
}

TEST(StreamBackend, FramesThatCannotBeAreNotSent) {
  Line line;
  EXPECT_EQ(line.send(""), -EMSGSIZE);
  EXPECT_EQ(line.send(frame_of(NetBackend::kMaxFrame + 1)), -EMSGSIZE);
  EXPECT_EQ(line.heard(), "");
}

TEST(HostForward, SaysWhichPortLeadsWhere) {
  const auto net = parse_net("user,hostfwd=tcp:8080:80,hostfwd=udp:127.0.0.1:5353:53,hostfwd=tcp:[::1]:1:65535");
  EXPECT_TRUE(net.user);
  ASSERT_EQ(net.forwards.size(), 3U);
  EXPECT_EQ(net.forwards[0].protocol, HostForward::Protocol::Tcp);
  EXPECT_EQ(net.forwards[0].address, "");
  EXPECT_EQ(net.forwards[0].host, 8080);
  EXPECT_EQ(net.forwards[0].guest, 80);
  EXPECT_EQ(net.forwards[1].protocol, HostForward::Protocol::Udp);
  EXPECT_EQ(net.forwards[1].address, "127.0.0.1");
  EXPECT_EQ(net.forwards[2].address, "::1");
  EXPECT_EQ(net.forwards[2].guest, 65535);
}

TEST(HostForward, RefusesWhatCannotBe) {
  for (const char* const bad : {"user,hostfwd=",
                                "user,hostfwd=tcp",
                                "user,hostfwd=80:80",
                                "user,hostfwd=tcp:80",
                                "user,hostfwd=sctp:80:80",
                                "user,hostfwd=tcp:0:80",
                                "user,hostfwd=tcp:80:65536",
                                "user,hostfwd=tcp:80x:80",
                                "user,hostfwd=tcp:host:80:80",
                                "user,hostfwd=tcp:::1:80:80",
                                "user,hostfwd=tcp::80:80",
                                "user,hostfwd=tcp:[1.2.3.4]:80:80",
                                "user,queues=2",
                                "user,vhost=on",
                                "user,bridge=br0",
                                "user,mtu=65535",
                                "bridge=br0,hostfwd=tcp:80:80",
                                "user,spoof=deny",
                                "user,user",
                                "user=off"}) {
    EXPECT_THROW((void)parse_net(bad), HostError) << bad;
  }
}

}  // namespace
}  // namespace martlet
