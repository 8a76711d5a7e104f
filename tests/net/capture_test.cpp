// A switch that tells VLANs apart, captured.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "net/port_bridge.h"
#include "net/port_guard.h"
#include "net/switch_capture.h"
#include "net/tap.h"
#include "tests/net/reach.h"
#include "tests/net/switches.h"
#include "tests/support/subprocess.h"
#include "tests/unit/pcapng_reader.h"

namespace martlet {
namespace {

using namespace test;

TEST(SwitchCapture, OfOneVlanHasWhatItsAccessPortsSendUntagged) {
  in_namespace([] {
    run_shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    make({.name = "br0"});
    Rtnetlink netlink;
    if (!read_bridge_vlans(netlink, netlink.find("br0")->index).filtering) {
      GTEST_SKIP() << "this kernel's bridges do not tell VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING); boot.net does it";
    }
    for (const std::uint16_t vlan : {std::uint16_t{10}, std::uint16_t{20}, std::uint16_t{10}}) {
      const auto number = netlink.links().size();
      const auto port = fmt::format("p{}", number);
      run_shell(
          fmt::format("ip link add {} type veth peer name g{} && ip link set {} master br0 up && "
                      "ip link set g{} up",
                      port, number, port, number));
      EXPECT_EQ(set_vlans(netlink, netlink.find(port)->index, {.ranges = {{vlan, vlan}}, .native = vlan}), 0);
    }
    const auto send_from = [&](const std::string& device, const std::string& text) {
      const auto frame = std::string(6, '\xff') + std::string{"\x52\x54\0\0\0\7", 6} + "\x88\xb5" + text;
      const auto socket = open_socket(AF_PACKET, SOCK_RAW);
      sockaddr_ll where{.sll_family = AF_PACKET, .sll_ifindex = netlink.find(device)->index};
      EXPECT_GT(
          ::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
    };
    const TempDir directory;
    const auto path = directory.file("ten.pcapng");
    EventLoop loop;
    SwitchCapture capture{loop, {.name = "br0", .file = path, .vlan = 10}};
    const auto links = netlink.links();
    for (const auto& link : links) {
      if (link.name.starts_with("g")) {
        send_from(link.name, "from " + link.name);
      }
    }
    const auto counts = capture.finish();
    EXPECT_EQ(counts.seen, 2U);
    EXPECT_EQ(counts.dropped, 0U);
    const Captured file{read_file(path)};
    ASSERT_EQ(file.packets.size(), 2U);
    for (const auto& packet : file.packets) {
      auto port = file.interfaces[packet.interface].at(2);
      EXPECT_EQ(packet.bytes.substr(14), "from " + port.replace(0, 1, "g"));
    }
    EXPECT_NE(file.packets[0].interface, file.packets[1].interface);
  });
}

TEST(SwitchCapture, HasWhatAPortsFilterDropsAfterIt) {
  in_namespace([] {
    run_shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    make({.name = "br0"});
    const auto tap = Tap::on_bridge({.bridge = "br0", .guest = {0x52, 0x54, 0, 0, 0, 1}});
    EventLoop loop;
    SwitchCapture capture{loop, {.name = "br0", .file = "/dev/null"}};
    std::array<std::uint8_t, NetBackend::kHeaderSize + 60> frame{};
    std::fill_n(frame.begin() + NetBackend::kHeaderSize, 6, std::uint8_t{0xff});  // from nobody
    const iovec whole{frame.data(), frame.size()};
    EXPECT_EQ(tap->send(0, {&whole, 1}), static_cast<std::ptrdiff_t>(frame.size()));
    EXPECT_EQ(PortGuard::read(tap->name(), Rtnetlink{}.find(tap->name())->index)->foreign_senders, 1U);
    EXPECT_EQ(capture.finish().seen, 1U);
  });
}

TEST(SwitchCapture, ToStdoutGoesOnWhereThatIs) {
  in_namespace([] {
    make({.name = "br0"});
    const TempDir directory;
    const auto path = directory.file("all");
    run_shell("echo before >" + path);
    Subprocess capture{{.command = {"sh", "-c", "exec " MARTLET_PROGRAM " net capture br0 >>\"$0\"", path}}};
    ASSERT_TRUE(capture.wait_until([&] { return read_file(path).size() > 60; }));  // its head is there
    capture.send_signal(SIGINT);
    EXPECT_EQ(capture.wait().exit_code, 0);
    EXPECT_TRUE(read_file(path).starts_with("before\n\x0a\x0d\x0d\x0a"));
  });
}

}  // namespace
}  // namespace martlet
