// A guest of a few frames on passt, in a network namespace where 10.9.0.2 is the host's address and 10.8.0.1
// somebody out there; as an ordinary user without any privilege.

#include "net/passt.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "net/stream_backend.h"
#include "tests/support/namespace.h"

namespace martlet {
namespace {

using test::error_of;
using test::in_namespace;
using test::run_shell;
using namespace std::string_literals;

constexpr const char* kNetwork =
    "ip link set lo up && ip link add up0 type bridge && ip addr add 10.9.0.2/24 dev up0 && "
    "ip addr add fd09::2/64 dev up0 nodad && ip link set up0 up && ip route add default via 10.9.0.1 && "
    "ip -6 route add default via fd09::1 dev up0 && ip addr add 10.8.0.1/32 dev lo && "
    "ip addr add fd08::1/128 dev lo nodad";
const std::string kGuest = "\x52\x54\x00\x12\x34\x56"s;
const std::string kEverybody(6, '\xff');

/// 10.9.0.2
std::string four(const char* text) {
  std::string bytes(4, '\0');
  ::inet_pton(AF_INET, text, bytes.data());
  return bytes;
}
std::string six(const char* text) {
  std::string bytes(16, '\0');
  ::inet_pton(AF_INET6, text, bytes.data());
  return bytes;
}
std::string number16(unsigned value) { return {static_cast<char>(value >> 8U), static_cast<char>(value)}; }
std::string number32(std::uint32_t value) { return number16(value >> 16U) + number16(value & 0xffffU); }
std::uint32_t number_at(const std::string& bytes, std::size_t at, std::size_t size) {
  std::uint32_t value = 0;
  for (std::size_t i = at; i < at + size && i < bytes.size(); ++i) {
    value = value << 8U | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}
/// RFC 1071.
std::string checksum(std::string bytes) {
  bytes += bytes.size() % 2 != 0 ? "\0"s : "";
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    sum += number_at(bytes, i, 2);
  }
  sum = (sum & 0xffffU) + (sum >> 16U);
  sum = (sum & 0xffffU) + (sum >> 16U);
  return number16(~sum & 0xffffU);
}

enum Protocol : unsigned char { kIcmp6 = 58, kTcp = 6, kUdp = 17 };

std::string ip4(const std::string& from, const std::string& to, Protocol protocol, const std::string& payload) {
  const auto begin = "\x45\0"s + number16(static_cast<unsigned>(20 + payload.size())) + "\0\0\x40\0\x40"s +
                     static_cast<char>(protocol);
  return begin + checksum(begin + from + to) + from + to + payload;
}
std::string ip6(const std::string& from, const std::string& to, Protocol protocol, const std::string& payload) {
  return "\x60\0\0\0"s + number16(static_cast<unsigned>(payload.size())) + static_cast<char>(protocol) + "\xff" + from +
         to + payload;
}
/// With the checksum that goes `at`.
std::string summed(const std::string& from, const std::string& to, Protocol protocol, std::string payload,
                   std::size_t at) {
  const auto sum = checksum(from + to + number32(static_cast<std::uint32_t>(payload.size())) +
                            number32(std::uint32_t{protocol}) + payload);
  return payload.replace(at, 2, sum);
}
std::string udp(const std::string& from, const std::string& to, unsigned from_port, unsigned to_port,
                const std::string& text) {
  return summed(
      from, to, kUdp,
      number16(from_port) + number16(to_port) + number16(static_cast<unsigned>(8 + text.size())) + "\0\0"s + text, 6);
}
struct Segment {
  unsigned from_port = 0;
  unsigned to_port = 0;
  std::uint32_t sequence = 0;
  std::uint32_t acknowledged = 0;
  unsigned char flags = 0;
  std::string text{};
};
enum TcpFlags : unsigned char { kSyn = 2, kPush = 8, kAck = 16 };
std::string tcp(const std::string& from, const std::string& to, const Segment& segment) {
  return summed(from, to, kTcp,
                number16(segment.from_port) + number16(segment.to_port) + number32(segment.sequence) +
                    number32(segment.acknowledged) + "\x50" + static_cast<char>(segment.flags) + number16(0xffff) +
                    "\0\0\0\0"s + segment.text,
                16);
}

class FakeGuest {
 public:
  explicit FakeGuest(const PasstOptions& options) : backend{start_passt(options), options.mtu} {
    // It learns passt's address as every guest does.
    send(kEverybody, 0x0806, "\0\1\x08\0\6\4\0\1"s + kGuest + address + std::string(6, '\0') + four("10.9.0.1"));
    const auto answer = await([](const std::string& frame) { return number_at(frame, 12, 2) == 0x0806; });
    gateway = answer.substr(std::min<std::size_t>(6, answer.size()), 6);
    EXPECT_EQ(gateway.size(), 6U);
  }
  void send(const std::string& to, unsigned type, const std::string& packet) {
    std::string whole = std::string(NetBackend::kHeaderSize, '\0') + to + kGuest + number16(type) + packet;
    const iovec vector{.iov_base = whole.data(), .iov_len = whole.size()};
    EXPECT_EQ(backend.send(0, {&vector, 1}), static_cast<std::ptrdiff_t>(whole.size()));
  }
  /// The next frame that is `wanted`; empty when none comes.
  std::string await(const std::function<bool(const std::string&)>& wanted) {
    for (;;) {
      std::string whole(NetBackend::kHeaderSize + NetBackend::kMaxFrame, '\0');
      const iovec vector{.iov_base = whole.data(), .iov_len = whole.size()};
      const auto got = backend.receive(0, {&vector, 1});
      if (got == -EAGAIN) {
        pollfd ready{.fd = backend.fd(0), .events = POLLIN, .revents = 0};
        if (::poll(&ready, 1, 30'000) == 1) {
          continue;
        }
      }
      if (got < 0) {
        return {};
      }
      auto frame = whole.substr(NetBackend::kHeaderSize, static_cast<std::size_t>(got) - NetBackend::kHeaderSize);
      if (wanted(frame)) {
        return frame;
      }
    }
  }
  /// The next IPv4 packet to this port of the guest.
  std::string await4(Protocol protocol, unsigned port) {
    const auto frame = await([&](const std::string& it) {
      return number_at(it, 12, 2) == 0x0800 && number_at(it, 23, 1) == protocol && number_at(it, 36, 2) == port;
    });
    return frame.substr(std::min<std::size_t>(14, frame.size()));
  }

  StreamBackend backend;
  std::string address = four("10.9.0.2");
  std::string gateway;
};

/// A socket of the host's.
struct Host {
  Host(int family, int type, const char* address, unsigned port) : fd{::socket(family, type | SOCK_CLOEXEC, 0)} {
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (family == AF_INET) {
      auto& four_of = reinterpret_cast<sockaddr_in&>(where);
      four_of = {.sin_family = AF_INET, .sin_port = htons(static_cast<std::uint16_t>(port)), .sin_addr = {}};
      ::inet_pton(family, address, &four_of.sin_addr);
      size = sizeof four_of;
    } else {
      auto& six_of = reinterpret_cast<sockaddr_in6&>(where);
      six_of = {.sin6_family = AF_INET6, .sin6_port = htons(static_cast<std::uint16_t>(port))};
      ::inet_pton(family, address, &six_of.sin6_addr);
      size = sizeof six_of;
    }
  }
  [[nodiscard]] sockaddr* name() { return reinterpret_cast<sockaddr*>(&where); }
  void listen() {
    EXPECT_EQ(::bind(fd.get(), name(), size), 0) << std::strerror(errno);
    ::listen(fd.get(), 1);
  }
  [[nodiscard]] bool connect() { return ::connect(fd.get(), name(), size) == 0; }
  std::string read(int from) const {
    std::string text(2000, '\0');
    const auto got = ::recv(from, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }

  Fd fd;
  sockaddr_storage where{};
  socklen_t size = 0;
};

/// `body` as an ordinary user where the network is; skipped without passt.
void as_nobody(const std::function<void()>& body) {
  if (!test::shell_says("command -v passt >/dev/null")) {
    GTEST_SKIP() << "needs the package passt";
  }
  in_namespace([&] {
    run_shell(kNetwork);
    ASSERT_EQ(::setresgid(65534, 65534, 65534), 0);
    ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
    body();
  });
}

TEST(Passt, GivesTheHostsAddressByDhcp) {
  as_nobody([] {
    FakeGuest guest{{.mtu = 9000}};
    const auto bootp = "\1\1\6\0"s + number32(7) + std::string(20, '\0') + kGuest + std::string(202, '\0') +
                       "\x63\x82\x53\x63"s + "\x35\1\1\xff"s + std::string(60, '\0');
    const auto nowhere = std::string(4, '\0');
    const auto all = std::string(4, '\xff');
    guest.send(kEverybody, 0x0800, ip4(nowhere, all, kUdp, udp(nowhere, all, 68, 67, bootp)));
    const auto packet = guest.await4(kUdp, 68);
    ASSERT_GT(packet.size(), 268U);
    const auto answer = packet.substr(28);
    EXPECT_EQ(answer.substr(16, 4), guest.address);
    const auto options = answer.substr(240);
    EXPECT_NE(options.find("\3\4"s + four("10.9.0.1")), std::string::npos) << "router";
    EXPECT_NE(options.find("\x1a\2"s + number16(9000)), std::string::npos) << "MTU";
    std::ifstream resolv{"/etc/resolv.conf"};
    for (std::string word; resolv >> word;) {
      if (word == "nameserver" && resolv >> word && word.find(':') == std::string::npos && !word.starts_with("127.")) {
        EXPECT_NE(options.find(four(word.c_str())), std::string::npos) << "the host's resolver, " << word;
        break;
      }
    }
  });
}

TEST(Passt, CarriesUdpBothWays) {
  as_nobody([] {
    Host server{AF_INET, SOCK_DGRAM, "10.8.0.1", 7777};
    server.listen();
    FakeGuest guest{{.forwards = {parse_host_forward("udp:15353:53")}}};
    const auto there = four("10.8.0.1");
    guest.send(guest.gateway, 0x0800, ip4(guest.address, there, kUdp, udp(guest.address, there, 4000, 7777, "hello")));
    std::array<char, 100> text{};
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    ASSERT_EQ(::recvfrom(server.fd.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&from), &size), 5);
    EXPECT_EQ((std::string{text.data(), 5}), "hello");
    ASSERT_EQ(::sendto(server.fd.get(), "you too", 7, 0, reinterpret_cast<sockaddr*>(&from), size), 7);
    const auto packet = guest.await4(kUdp, 4000);
    ASSERT_GE(packet.size(), 35U);
    EXPECT_EQ(packet.substr(12, 4), there);
    EXPECT_EQ(packet.substr(28), "you too");

    Host client{AF_INET, SOCK_DGRAM, "127.0.0.1", 15353};
    ASSERT_TRUE(client.connect());
    ASSERT_EQ(::send(client.fd.get(), "who?", 4, 0), 4);
    const auto question = guest.await4(kUdp, 53);
    ASSERT_GE(question.size(), 32U);
    EXPECT_EQ(question.substr(28), "who?");
    const auto asker = question.substr(12, 4);
    guest.send(guest.gateway, 0x0800,
               ip4(guest.address, asker, kUdp, udp(guest.address, asker, 53, number_at(question, 20, 2), "it is me")));
    EXPECT_EQ(client.read(client.fd.get()), "it is me");
  });
}

TEST(Passt, CarriesTcpOutAndIn) {
  as_nobody([] {
    Host server{AF_INET, SOCK_STREAM, "10.8.0.1", 7778};
    server.listen();
    FakeGuest guest{{.forwards = {parse_host_forward("tcp:127.0.0.1:18080:80")}}};
    const auto there = four("10.8.0.1");
    const auto say = [&](const std::string& to, const Segment& segment) {
      guest.send(guest.gateway, 0x0800, ip4(guest.address, to, kTcp, tcp(guest.address, to, segment)));
    };
    say(there, {.from_port = 4001, .to_port = 7778, .sequence = 100, .flags = kSyn});
    const auto answer = guest.await4(kTcp, 4001);
    ASSERT_GE(answer.size(), 40U);
    EXPECT_EQ(number_at(answer, 33, 1) & (kSyn | kAck), kSyn | kAck);
    EXPECT_EQ(number_at(answer, 28, 4), 101U);
    const auto next = number_at(answer, 24, 4) + 1;
    say(there, {.from_port = 4001, .to_port = 7778, .sequence = 101, .acknowledged = next, .flags = kAck});
    say(there, {.from_port = 4001,
                .to_port = 7778,
                .sequence = 101,
                .acknowledged = next,
                .flags = kAck | kPush,
                .text = "hello"});
    const Fd connection{::accept(server.fd.get(), nullptr, nullptr)};
    EXPECT_EQ(server.read(connection.get()), "hello");

    Host client{AF_INET, SOCK_STREAM, "127.0.0.1", 18080};
    ASSERT_TRUE(client.connect());
    const auto syn = guest.await4(kTcp, 80);
    ASSERT_GE(syn.size(), 40U);
    EXPECT_EQ(number_at(syn, 33, 1) & (kSyn | kAck), kSyn);
    Host elsewhere{AF_INET, SOCK_STREAM, "10.8.0.1", 18080};
    EXPECT_FALSE(elsewhere.connect()) << "one address only was asked for";
  });
}

TEST(Passt, SpeaksIpv6) {
  as_nobody([] {
    Host server{AF_INET6, SOCK_DGRAM, "fd08::1", 7777};
    server.listen();
    FakeGuest guest{{}};
    const auto link = six("fe80::5054:ff:fe12:3456");
    const auto routers = six("ff02::2");
    guest.send("\x33\x33\0\0\0\2"s, 0x86dd,
               ip6(link, routers, kIcmp6, summed(link, routers, kIcmp6, "\x85\0\0\0\0\0\0\0"s, 2)));
    const auto advertisement = guest.await([](const std::string& frame) {
      return number_at(frame, 12, 2) == 0x86dd && number_at(frame, 20, 1) == kIcmp6 && number_at(frame, 54, 1) == 134;
    });
    EXPECT_NE(advertisement.find(six("fd09::").substr(0, 8)), std::string::npos) << "the host's prefix";
    const auto here = six("fd09::2");
    const auto there = six("fd08::1");
    guest.send(guest.gateway, 0x86dd, ip6(here, there, kUdp, udp(here, there, 4002, 7777, "hello")));
    EXPECT_EQ(server.read(server.fd.get()), "hello");
  });
}

/// passts of this network namespace.
std::vector<pid_t> passts() {
  namespace fs = std::filesystem;
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator{"/proc"}) {
    std::error_code ignored;
    std::string words;
    std::getline(std::ifstream{entry.path() / "cmdline"}, words);
    const auto name = entry.path().filename().string();
    if (words.find("--quiet\0--fd\0003"s) != std::string::npos && words.find("passt") != std::string::npos &&
        fs::read_symlink(entry.path() / "ns/net", ignored) == fs::read_symlink("/proc/self/ns/net", ignored)) {
      found.push_back(static_cast<pid_t>(std::stol(name)));
    }
  }
  return found;
}

TEST(Passt, EndsWithItsOwnerHoweverThatEnds) {
  for (const bool root : {false, true}) {
    const auto body = [] {
      for (const int signal : {SIGKILL, SIGTERM, SIGSEGV}) {
        std::array<int, 2> pipe{};
        ASSERT_EQ(::pipe(pipe.data()), 0);
        const pid_t owner = ::fork();
        if (owner == 0) {
          const FakeGuest guest{{.forwards = {parse_host_forward("tcp:18080:80")}}};
          static_cast<void>(::write(pipe[1], "x", 1));
          ::pause();
        }
        ::close(pipe[1]);
        char byte = 0;
        ASSERT_EQ(::read(pipe[0], &byte, 1), 1);
        ::close(pipe[0]);
        const auto reached = [] { return Host{AF_INET, SOCK_STREAM, "127.0.0.1", 18080}.connect(); };
        EXPECT_TRUE(reached());
        ::kill(owner, signal);
        ::waitpid(owner, nullptr, 0);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
        while (reached() && std::chrono::steady_clock::now() < deadline) {
          std::this_thread::sleep_for(std::chrono::milliseconds{10});
        }
        EXPECT_FALSE(reached()) << "signal " << signal;
      }
    };
    if (root) {
      in_namespace([&] {
        run_shell(kNetwork);
        body();
      });
    } else {
      as_nobody(body);
    }
  }
}

TEST(Passt, ItsDeathIsSeen) {
  in_namespace([] {
    run_shell(kNetwork);
    FakeGuest guest{{}};
    const auto found = passts();
    ASSERT_EQ(found.size(), 1U);
    ::kill(found.front(), SIGKILL);
    pollfd hung{.fd = guest.backend.fd(0), .events = 0, .revents = 0};
    ASSERT_EQ(::poll(&hung, 1, 10000), 1);
    EXPECT_NE(hung.revents & POLLHUP, 0);
    std::string whole(NetBackend::kHeaderSize + 60, '\0');
    const iovec vector{.iov_base = whole.data(), .iov_len = whole.size()};
    EXPECT_EQ(guest.backend.send(0, {&vector, 1}), -ENODEV);
  });
}

TEST(Passt, WhatStandsInItsWayIsSaidInOneLine) {
  as_nobody([] {
    Host taken{AF_INET, SOCK_STREAM, "0.0.0.0", 18080};
    taken.listen();
    const auto busy = error_of([] { (void)start_passt({.forwards = {parse_host_forward("tcp:18080:80")}}); });
    EXPECT_EQ(busy, "-n user: hostfwd=tcp:18080:80: Address already in use");
    const auto low = error_of([] { (void)start_passt({.forwards = {parse_host_forward("udp:127.0.0.1:53:53")}}); });
    EXPECT_EQ(low, "-n user: hostfwd=udp:127.0.0.1:53:53: Permission denied");
    ::setenv("PATH", "/nowhere", 1);
    const auto missing = error_of([] { (void)start_passt({}); });
    EXPECT_NE(missing.find("apt-get install passt"), std::string::npos) << missing;
  });
}

}  // namespace
}  // namespace martlet
