// TAPs and bridges for real, in a network namespace that a child of the test makes for itself.

#include "net/tap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "net/open_backend.h"
#include "net/rtnetlink.h"
#include "tests/support/namespace.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr MacAddress kMac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::unique_ptr<Tap> on_br0(std::uint16_t pairs = 1) {
  // Frames of these tests have any sender.
  return Tap::on_bridge({.bridge = "br0", .pairs = pairs, .guest = kMac, .policy = {.spoof = Spoof::Allow}});
}

using Frame = std::vector<std::byte>;

Frame frame_of(std::size_t bytes) {
  Frame frame(NetBackend::kHeaderSize + bytes);
  for (std::size_t i = NetBackend::kHeaderSize; i < frame.size(); ++i) {
    frame[i] = static_cast<std::byte>(i);
  }
  std::fill_n(frame.begin() + NetBackend::kHeaderSize, 6, std::byte{0xff});  // to everybody
  frame[NetBackend::kHeaderSize + 6] = std::byte{0x52};                      // from somebody
  frame[NetBackend::kHeaderSize + 12] = std::byte{0x88};                     // IEEE 802 local experimental ethertype
  frame[NetBackend::kHeaderSize + 13] = std::byte{0xb5};
  return frame;
}

bool send(Tap& tap, std::uint16_t pair, Frame& frame) {
  const std::array<iovec, 1> whole{{{frame.data(), frame.size()}}};
  return tap.send(pair, whole) == static_cast<std::ptrdiff_t>(frame.size());
}

/// The next of our frames; the kernel's own chatter (MLD, DAD) is passed over.
Frame receive(Tap& tap, std::uint16_t pair = 0) {
  for (;;) {
    pollfd ready{.fd = tap.fd(pair), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 5000) != 1) {
      return {};
    }
    Frame frame(NetBackend::kHeaderSize + NetBackend::kMaxFrame);
    const std::array<iovec, 1> whole{{{frame.data(), frame.size()}}};
    const auto got = tap.receive(pair, whole);
    if (got >= 26 && frame[24] == std::byte{0x88} && frame[25] == std::byte{0xb5}) {
      frame.resize(static_cast<std::size_t>(got));
      return frame;
    }
  }
}

bool same_payload(const Frame& a, const Frame& b) {
  return a.size() == b.size() &&
         std::equal(a.begin() + NetBackend::kHeaderSize, a.end(), b.begin() + NetBackend::kHeaderSize);
}

TEST(Tap, OnABridgeTakesItsMtuAndIsAPort) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 address 52:54:00:00:00:01 mtu 9000 type bridge && ip link set br0 up");
    const auto tap = on_br0();
    EXPECT_EQ(tap->name(), "mlt0");
    EXPECT_EQ(tap->mtu(), 9000);
    EXPECT_NE(tap->offloads() & kChecksum, 0U);
    EXPECT_NE(tap->offloads() & kTso4, 0U);
    Rtnetlink netlink;
    const auto link = netlink.find("mlt0");
    const auto bridge = netlink.find("br0");
    ASSERT_TRUE(link && bridge);
    EXPECT_EQ(link->master, bridge->index);
    EXPECT_EQ(link->mtu, 9000U);
    EXPECT_NE(link->flags & IFF_UP, 0U);
    EXPECT_EQ(on_br0()->name(), "mlt1");  // the first is still there
  });
}

TEST(Tap, GoesWithItsOwnerHoweverThatEnds) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge && ip link set br0 up");
    for (const int signal : {SIGKILL, SIGTERM, SIGSEGV}) {
      std::array<int, 2> pipe{};
      ASSERT_EQ(::pipe(pipe.data()), 0);
      const pid_t owner = ::fork();
      if (owner == 0) {
        const auto tap = on_br0(2);
        const char done = 1;
        [[maybe_unused]] const auto written = ::write(pipe[1], &done, 1);
        ::pause();
        ::_exit(0);
      }
      char done = 0;
      ASSERT_EQ(::read(pipe[0], &done, 1), 1);
      ::close(pipe[0]);
      ::close(pipe[1]);
      Rtnetlink netlink;
      ASSERT_TRUE(netlink.find("mlt0"));
      ::kill(owner, signal);
      ::waitpid(owner, nullptr, 0);
      EXPECT_FALSE(netlink.find("mlt0")) << signal;
    }
  });
}

TEST(Tap, TwoOnABridgeExchangeFrames) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    const auto a = on_br0();
    const auto b = on_br0(3);
    for (const std::size_t size : {60U, 61U, 1514U}) {
      Frame frame = frame_of(size);
      EXPECT_TRUE(send(*a, 0, frame));
      EXPECT_TRUE(same_payload(receive(*b), frame)) << size;
      EXPECT_TRUE(send(*b, 0, frame));
      EXPECT_TRUE(same_payload(receive(*a), frame)) << size;
    }
    ASSERT_TRUE(b->enable_pairs(3));
    ASSERT_TRUE(b->enable_pairs(2));
    Frame frame = frame_of(100);
    EXPECT_TRUE(send(*b, 1, frame));
    EXPECT_TRUE(same_payload(receive(*a), frame));
    ASSERT_TRUE(b->enable_pairs(1));
    EXPECT_TRUE(send(*b, 0, frame));
  });
}

TEST(Tap, ASegmentedPacketPassesWholeWhoeverCanTakeIt) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    const auto a = on_br0();
    const auto b = on_br0();
    ASSERT_TRUE(b->set_offloads(kChecksum | kTso4));
    // Ethernet, IPv4, TCP and 8000 bytes; TCP's checksum and the cutting are left to who can.
    Frame frame = frame_of(14 + 20 + 20 + 8000);
    const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
      for (const int byte : bytes) {
        frame[at++] = static_cast<std::byte>(byte);
      }
    };
    put(0, {1, 1, 54, 0, 1000 & 0xff, 1000 >> 8, 34, 0, 16, 0, 0, 0});  // NEEDS_CSUM, TCPv4, 1000 a segment
    put(24, {0x08, 0x00});
    put(26, {0x45, 0, 8040 >> 8, 8040 & 0xff, 0, 1, 0x40, 0, 64, 6, 0x07, 0x8d, 10, 0, 0, 1, 10, 0, 0, 2});
    put(46, {0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0});
    const auto next = [&] {  // IPv4 packet: the length of its frame and its gso_type
      Frame got(NetBackend::kHeaderSize + NetBackend::kMaxFrame);
      for (pollfd ready{.fd = b->fd(0), .events = POLLIN, .revents = 0}; ::poll(&ready, 1, 5000) == 1;) {
        const std::array<iovec, 1> whole{{{got.data(), got.size()}}};
        const auto length = b->receive(0, whole);
        if (got[24] == std::byte{0x08} && got[25] == std::byte{0x00}) {
          return std::pair{length, std::to_integer<int>(got[1])};
        }
      }
      return std::pair{std::ptrdiff_t{0}, -1};
    };
    ASSERT_TRUE(b->set_offloads(kChecksum | kTso4));
    ASSERT_TRUE(send(*a, 0, frame));
    EXPECT_EQ(next(), (std::pair{static_cast<std::ptrdiff_t>(frame.size()), 1}));
    ASSERT_TRUE(b->set_offloads(0));
    ASSERT_TRUE(send(*a, 0, frame));
    for (int segment = 0; segment < 8; ++segment) {
      EXPECT_EQ(next(), (std::pair{std::ptrdiff_t{12 + 54 + 1000}, 0}));
    }
  });
}

TEST(Tap, ManyFramesByOneCallStayInOrder) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    const auto a = on_br0();
    const auto b = on_br0();
    for (const std::size_t count : {2U, 16U, 70U}) {
      std::vector<Frame> frames;
      for (std::size_t i = 0; i < count; ++i) {
        frames.push_back(frame_of(60 + i));
      }
      frames[1].resize(NetBackend::kHeaderSize + 5);  // no frame: the next ones go all the same
      std::vector<std::array<iovec, 2>> pieces;
      std::vector<NetBackend::Transfer> transfers;
      pieces.reserve(count);
      for (auto& frame : frames) {
        constexpr std::size_t kCut = NetBackend::kHeaderSize + 3;
        pieces.push_back({{{frame.data(), kCut}, {frame.data() + kCut, frame.size() - kCut}}});
        transfers.push_back({.vectors = pieces.back()});
      }
      a->send_all(0, transfers);
      for (std::size_t i = 0; i < count; ++i) {
        const auto whole = static_cast<std::ptrdiff_t>(frames[i].size());
        EXPECT_EQ(transfers[i].result, i == 1 ? -EINVAL : whole);
      }
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_TRUE(i == 1 || same_payload(receive(*b), frames[i])) << i;
      }
    }
  });
}

TEST(Tap, ManyFramesComeByOneCallAndWhatIsNotThereIsNotWaitedFor) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    const auto a = on_br0();
    const auto b = on_br0();
    std::vector<Frame> into(40, Frame(2000));
    std::vector<iovec> vectors;
    for (auto& frame : into) {
      vectors.push_back({frame.data(), frame.size()});
    }
    std::size_t next = 0;
    for (std::size_t sent = 0; next < 50;) {
      for (std::size_t burst = 0; burst < 10 && sent < 50; ++burst, ++sent) {
        Frame frame = frame_of(60 + sent);
        ASSERT_TRUE(send(*a, 0, frame));
      }
      std::vector<NetBackend::Transfer> transfers;
      for (const auto& vector : vectors) {
        transfers.push_back({.vectors = {&vector, 1}});
      }
      b->receive_all(0, transfers);
      for (std::size_t i = 0; i < transfers.size(); ++i) {
        const auto got = transfers[i].result;
        const bool ours = got >= 26 && into[i][24] == std::byte{0x88} && into[i][25] == std::byte{0xb5};
        if (ours) {
          EXPECT_EQ(static_cast<std::size_t>(got), NetBackend::kHeaderSize + 60 + next);
          ++next;
        }
        EXPECT_TRUE(got >= 26 || got == -EAGAIN) << got;
      }
      EXPECT_EQ(transfers.back().result, -EAGAIN);
    }
  });
}

TEST(Tap, OneThatFillsUpGetsNoFrameBeforeItsTurn) {
  test::in_namespace([] {
    test::run_shell("ip tuntap add dev full mode tap && ip link set full up");
    const Fd first = open_file("/dev/net/tun", O_RDWR | O_NONBLOCK);
    ifreq request{};
    std::strcpy(request.ifr_name, "full");
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    const int little = 1;
    ASSERT_EQ(::ioctl(first.get(), TUNSETIFF, &request), 0);
    ASSERT_EQ(::ioctl(first.get(), TUNSETSNDBUF, &little), 0);
    const auto tap = Tap::inherit(first.get());
    Frame frame = frame_of(100);
    const std::array<iovec, 1> whole{{{frame.data(), frame.size()}}};
    std::vector<NetBackend::Transfer> transfers(5, NetBackend::Transfer{.vectors = whole});
    tap->send_all(0, transfers);
    const auto length = static_cast<std::ptrdiff_t>(frame.size());
    bool full = false;
    for (const auto& transfer : transfers) {
      full = full || transfer.result == -EAGAIN;
      EXPECT_EQ(transfer.result, full ? -EAGAIN : length);
    }
  });
}

TEST(Tap, TakesOneThatIsThere) {
  test::in_namespace([] {
    test::run_shell("ip tuntap add dev one mode tap && ip link set one up");
    test::run_shell("ip tuntap add dev many mode tap multi_queue && ip link set many up mtu 4000");
    test::run_shell("ip tuntap add dev down mode tap");
    test::run_shell("ip tuntap add dev tun mode tun");
    {
      const auto one = Tap::open({.name = "one"});
      EXPECT_EQ(one->pairs(), 1);
      EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "one"}); }), "busy"));
      const auto down = Tap::open({.name = "down"});
      EXPECT_NE(Rtnetlink{}.find("down")->flags & IFF_UP, 0U);
    }
    EXPECT_TRUE(Rtnetlink{}.find("one"));  // it was there before
    {
      const auto many = Tap::open({.name = "many"});  // one queue of it will do
      EXPECT_EQ(many->mtu(), 4000);
    }
    EXPECT_EQ(Tap::open({.name = "many", .pairs = 4})->pairs(), 4);
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "one", .pairs = 2}); }), "multi_queue"));
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "tun"}); }), "not a TAP"));
    EXPECT_TRUE(
        contains(test::error_of([] { (void)Tap::open({.name = "lo"}); }), "is the loopback interface, not a TAP"));
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "nope"}); }), "no such interface"));
    EXPECT_FALSE(Rtnetlink{}.find("nope"));
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "sixteen-chars-xx"}); }), "too long"));
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "mlt%d"}); }), "not a name"));
  });
}

TEST(Tap, AnInheritedDescriptorIsLookedAt) {
  test::in_namespace([] {
    const auto make = [](short flags) {
      Fd fd = open_file("/dev/net/tun", O_RDWR);
      ifreq request{};
      request.ifr_flags = flags;
      if (flags != 0) {
        EXPECT_EQ(::ioctl(fd.get(), TUNSETIFF, &request), 0);
      }
      return fd;
    };
    const auto refused = [](int fd) { return test::error_of([=] { (void)Tap::inherit(fd); }); };
    {
      const Fd good = make(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
      const auto tap = Tap::inherit(good.get());
      EXPECT_EQ(tap->name(), "tap0");
      Frame frame(2000);
      const std::array<iovec, 1> whole{{{frame.data(), frame.size()}}};
      EXPECT_LT(tap->receive(0, whole), 0);  // at once: it does not block
    }
    EXPECT_TRUE(contains(refused(make(IFF_TAP | IFF_NO_PI).get()), "IFF_VNET_HDR"));
    EXPECT_TRUE(contains(refused(make(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR).get()), "not a TAP"));
    EXPECT_TRUE(contains(refused(make(0).get()), "not a TAP"));
    EXPECT_TRUE(contains(refused(make_eventfd().get()), "not a TAP"));
    EXPECT_TRUE(contains(refused(9999), "not an open descriptor"));
  });
}

TEST(Tap, WhatIsWrongWithABridgeIsSaidInOneLine) {
  test::in_namespace([] {
    test::run_shell(
        "ip link add br0 type bridge && ip link add dummy0 type dummy 2>/dev/null || ip tuntap add dev dummy0 mode "
        "tap");
    const auto refused = [](const std::string& bridge) {
      return test::error_of([&] { (void)Tap::on_bridge({.bridge = bridge, .guest = kMac}); });
    };
    EXPECT_TRUE(contains(refused("br7"), "br7: there is no such interface"));
    EXPECT_TRUE(contains(refused("dummy0"), "not a bridge"));
    EXPECT_TRUE(contains(refused("lo"), "is the loopback interface, not a bridge"));
    EXPECT_TRUE(contains(refused("a-name-much-too-long"), "too long"));
    EXPECT_TRUE(contains(refused(""), "not a name"));
    NetOptions large{.bridge = "br0", .port = {.mtu = 9000}};
    EXPECT_TRUE(
        contains(test::error_of([&] { (void)open_backend(large, kMac, {}); }), "mtu=9000: the network carries 1500"));
    EXPECT_FALSE(Rtnetlink{}.find("mlt0"));  // nothing is left behind
  });
}

TEST(Tap, WithoutPrivilegeItSaysWhatIsMissing) {
  test::in_namespace([] {
    test::run_shell("ip link add br0 type bridge && ip tuntap add dev mine mode tap user 65534 && ip link set mine up");
    test::run_shell("ip tuntap add dev theirs mode tap user 1 && ip link set theirs up");
    ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
    if (::access("/dev/net/tun", R_OK | W_OK) != 0) {
      EXPECT_TRUE(contains(test::error_of([] { (void)on_br0(); }), "/dev/net/tun: not permitted"));
      return;
    }
    const auto refused = test::error_of([] { (void)on_br0(); });
    EXPECT_TRUE(contains(refused, "needs CAP_NET_ADMIN")) << refused;
    EXPECT_TRUE(contains(refused, "or a port made for you, as root: martlet net port tap0")) << refused;
    EXPECT_TRUE(contains(refused, "--bridge br0")) << refused;
    EXPECT_EQ(Tap::open({.name = "mine"})->name(), "mine");
    EXPECT_TRUE(contains(test::error_of([] { (void)Tap::open({.name = "theirs"}); }), "belongs to another user"));
  });
}

TEST(Tap, OneThatIsDeletedSaysSo) {
  test::in_namespace([] {
    test::run_shell("ip tuntap add dev gone mode tap && ip link set gone up");
    const auto tap = Tap::open({.name = "gone"});
    test::run_shell("ip link delete gone");
    Frame frame = frame_of(100);
    const std::array<iovec, 1> whole{{{frame.data(), frame.size()}}};
    EXPECT_EQ(tap->send(0, whole), -ENODEV);
    EXPECT_EQ(tap->receive(0, whole), -ENODEV);
    std::vector<NetBackend::Transfer> transfers(3, NetBackend::Transfer{.vectors = whole});
    const auto all_gone = [&] {
      return std::ranges::all_of(transfers, [](const auto& transfer) { return transfer.result == -ENODEV; });
    };
    tap->send_all(0, transfers);
    EXPECT_TRUE(all_gone());
    tap->receive_all(0, transfers);
    EXPECT_TRUE(all_gone());
  });
}

TEST(Tap, ItsLinkIsTheInterfaces) {
  test::in_namespace([] {
    test::run_shell("ip tuntap add dev mine mode tap && ip link add br0 type bridge");
    const auto tap = Tap::open({.name = "mine"});
    const auto news = [&] {
      pollfd ready{.fd = tap->link_fd(), .events = POLLIN, .revents = 0};
      return ::poll(&ready, 1, 5000) == 1;
    };
    const auto becomes = [&](bool up) {
      while (news()) {
        if (tap->refresh_link() == up) {
          return true;
        }
      }
      return false;
    };
    EXPECT_TRUE(becomes(true));
    test::run_shell("ip link set br0 up");  // another's news
    EXPECT_TRUE(becomes(true));
    for (const std::string how : {"down", "carrier off"}) {
      test::run_shell("ip link set mine " + how);
      EXPECT_TRUE(becomes(false)) << how;
      test::run_shell("ip link set mine " + (how == "down" ? std::string{"up"} : "carrier on"));
      EXPECT_TRUE(becomes(true)) << how;
    }
    // More than fits the socket: what is lost is asked for.
    test::run_shell("for i in $(seq 1000); do echo link set br0 down; echo link set br0 up; done | ip -batch -");
    test::run_shell("ip link set mine down");
    EXPECT_TRUE(becomes(false));
  });
}

}  // namespace
}  // namespace martlet
