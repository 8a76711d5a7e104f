// A whole switch captured: frames are put on it by hand in a network namespace, and read back from the file.

#include "net/switch_capture.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "net/rtnetlink.h"
#include "tests/support/namespace.h"
#include "tests/unit/boot_support.h"
#include "tests/unit/pcapng_reader.h"

namespace martlet {
namespace {

using test::Captured;
using namespace std::string_literals;

constexpr const char* kSwitch =
    "sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add br0 type bridge mcast_snooping 0 && "
    "ip link add p0 master br0 type veth peer name g0 && ip link add p1 master br0 type veth peer name g1 && "
    "for link in br0 p0 p1 g0 g1; do ip link set $link up || exit 1; done; "
    "until ip -o link show br0 | grep -q 'state UP'; do sleep 0.01; done";

/// To everybody, with this after the addresses.
std::string frame_of(const std::string& rest) {
  return "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x07"s + rest + std::string(60, 'x');
}

/// Puts the frame on a wire as often as `more` wants it.
void put(const char* interface, const std::string& frame, const std::function<bool()>& more) {
  const Fd socket{::socket(AF_PACKET, SOCK_RAW, 0)};
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_ifindex = static_cast<int>(::if_nametoindex(interface));
  while (more()) {
    EXPECT_EQ(::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&where), sizeof where),
              static_cast<ssize_t>(frame.size()));
  }
}
void put(const char* interface, const std::string& frame, int times = 1) {
  put(interface, frame, [&] { return times-- > 0; });
}

const std::string kPlain = frame_of("\x88\xb5"s);
const std::string kTagged = frame_of("\x81\x00\x00\x05\x88\xb5"s);

Captured capture_of(std::optional<std::uint16_t> vlan) {
  const test::FileDir directory;
  const auto path = directory / "switch.pcapng";
  EventLoop loop;
  SwitchCapture capture{loop, {.name = "br0", .file = path, .vlan = vlan}};
  put("g0", kPlain);
  put("g1", kTagged);
  put("br0", kPlain);
  EXPECT_EQ(capture.finish().dropped, 0U);
  return Captured{test::read_file(path)};
}

TEST(SwitchCapture, HasEveryFrameOnceWhereItEnters) {
  test::in_namespace([] {
    test::run_shell(kSwitch);
    const auto file = capture_of({});
    EXPECT_EQ(file.wrong, "");
    EXPECT_FALSE(file.cut);
    ASSERT_EQ(file.interfaces.size(), 3U);
    EXPECT_EQ(file.interfaces[0].at(2), "br0");
    std::vector<std::string> entered;
    for (const auto& packet : file.packets) {
      const auto& port = file.interfaces[packet.interface].at(2);
      entered.push_back(port);
      EXPECT_EQ(packet.direction, port == "br0" ? 2U : 1U);
      EXPECT_TRUE(packet.bytes == (port == "p1" ? kTagged : kPlain)) << port;
      EXPECT_NE(packet.time, 0U);
    }
    std::ranges::sort(entered);
    EXPECT_EQ(entered, (std::vector<std::string>{"br0", "p0", "p1"}));
    ASSERT_EQ(file.statistics.size(), 3U);
    EXPECT_EQ(file.statistics[0].seen, 1U);
  });
}

TEST(SwitchCapture, OfOneVlanHasNoOther) {
  test::in_namespace([] {
    test::run_shell(kSwitch);
    const auto file = capture_of(5);
    ASSERT_EQ(file.packets.size(), 1U);
    EXPECT_TRUE(file.packets[0].bytes == kTagged);
    EXPECT_TRUE(capture_of(6).packets.empty());
  });
}

TEST(SwitchCapture, FinishHearsNobodyElse) {
  test::in_namespace([] {
    test::run_shell(kSwitch);
    test::run_shell("ip link add x0 type veth peer name x1; ip link set x0 up; ip link set x1 up");
    constexpr int kOwn = 3000;  // so that there is time to hear others
    const test::FileDir directory;
    const auto path = directory / "switch.pcapng";
    EventLoop loop;
    SwitchCapture capture{loop, {.name = "br0", .file = path}};
    put("g0", kPlain, kOwn);
    const std::jthread others{
        [](const std::stop_token& stop) { put("x0", frame_of("others"), [&] { return !stop.stop_requested(); }); }};
    while (Rtnetlink{}.find("x1")->counters.rx_packets == 0) {
    }
    EXPECT_EQ(capture.finish().seen, kOwn);
    for (const auto& packet : Captured{test::read_file(path)}.packets) {
      ASSERT_TRUE(packet.bytes == kPlain);
    }
  });
}

TEST(SwitchCapture, WhatDoesNotFitIsCounted) {
  test::in_namespace([] {
    test::run_shell(kSwitch);
    constexpr std::uint64_t kSent = 30000;  // of 1512 bytes: more than a port's share of the kernel's memory
    const test::FileDir directory;
    const auto path = directory / "switch.pcapng";
    EventLoop loop;
    SwitchCapture capture{loop, {.name = "br0", .file = path}};
    put("g0", kPlain + std::string(1440, 'y'), kSent);
    const auto counts = capture.finish();
    EXPECT_EQ(counts.seen, kSent);
    EXPECT_GT(counts.dropped, 0U);
    const Captured file{test::read_file(path)};
    EXPECT_EQ(file.wrong, "");
    EXPECT_EQ(file.packets.size(), counts.seen - counts.dropped);
    ASSERT_EQ(file.statistics.size(), 3U);
    for (const auto& port : file.statistics) {  // br0 and p1 saw it go by, which is no loss
      const bool entered = file.interfaces[port.interface].at(2) == "p0";
      EXPECT_EQ(port.seen, entered ? kSent : 0U) << port.interface;
      EXPECT_EQ(port.dropped, entered ? counts.dropped : 0U) << port.interface;
    }
  });
}

TEST(SwitchCapture, WhatIsNoSwitchIsRefused) {
  test::in_namespace([] {
    EventLoop loop;
    const auto refusal = test::error_of([&] {
      const SwitchCapture capture{loop, {.name = "lo", .file = "/dev/null"}};
    });
    EXPECT_NE(refusal.find("lo: there is no such switch"), std::string::npos) << refusal;
  });
}

}  // namespace
}  // namespace martlet
