// The reachability matrix: each mode of a switch, guests in no VLAN, in the same and in different ones, isolated and
// not. Guests are network namespaces with a wire to the switch.

#include "tests/net/reach.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/port_bridge.h"

namespace martlet {
namespace {

using namespace test;

/// A host with a switch br0, two guests on it, and somebody outside at the end of the host's card eth0.
struct World {
  Namespace a{};
  Namespace b{};
  Namespace outside{};
  Parties parties{};

  struct Guests {
    std::string net4 = "10.0.0";
    std::string net6 = "fd10::";
    std::string routes{};  ///< what else they do to get through
  };
  World() {
    run_shell(
        "ip link set lo up && sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");  // the worst case
    wire("eth0", outside);
    run_shell("ip addr add 192.0.2.1/24 dev eth0 && ip addr add fd02::1/64 dev eth0 nodad");
    outside.run(
        "ip addr add 192.0.2.9/24 dev eth0 && ip addr add fd02::9/64 dev eth0 nodad && "
        "ip route add 10.0.0.0/24 via 192.0.2.1 && ip -6 route add fd10::/64 via fd02::1");
  }
  void add_guests(const Guests& guests) {
    for (auto* guest : {&a, &b}) {
      const auto number = guest == &a ? 11 : 12;
      const auto port = guest == &a ? "port-a" : "port-b";
      wire(port, *guest);
      run_shell(fmt::format("ip link set {} addrgenmode none && ip link set {} master br0", port, port));
      const auto ip4 = fmt::format("{}.{}", guests.net4, number);
      const auto ip6 = fmt::format("{}{}", guests.net6, number);
      guest->run(fmt::format("ip addr add {}/24 brd + dev eth0 && ip addr add {}/64 dev eth0 nodad", ip4, ip6));
      guest->run(guests.routes.empty() ? ":" : guests.routes);
      parties[guest == &a ? "a" : "b"] = {
          .where = guest, .device = "eth0", .ip4 = ip4, .ip6 = ip6, .broadcast = guests.net4 + ".255"};
    }
    parties["outside"] = {
        .where = &outside, .device = "eth0", .ip4 = "192.0.2.9", .ip6 = "fd02::9", .broadcast = "192.0.2.255"};
  }

 private:
  static void wire(const std::string& here, const Namespace& there) {
    run_shell(
        fmt::format("ip link add {} type veth peer name eth0 netns {} && ip link set {} up", here, there.path(), here));
    there.run("ip link set eth0 up");
  }
};

enum class Net { External, Internal, InternalNat, Private };
enum class Vlans { None, Same, Different };  // a is in 10, b in 10 or 20

struct Case {
  Net net = Net::External;
  Vlans vlans = Vlans::None;
  // What arrives.
  std::string guests{};  ///< each way, unless both are isolated
  std::string to_host{};
  std::string from_host{};
  std::string a_to_outside{};
  std::string outside_to_a{};
  std::string b_to_outside{};
  std::string outside_to_b{};
};

const std::string kAll = "A46B";
const std::string kNone{};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  constexpr std::array kNets{"External", "Internal", "InternalNat", "Private"};
  constexpr std::array kVlans{"NoVlans", "SameVlan", "DifferentVlans"};
  return fmt::format("{}{}", kNets[static_cast<std::size_t>(info.param.net)],
                     kVlans[static_cast<std::size_t>(info.param.vlans)]);
}

class Reach : public testing::TestWithParam<Case> {
 protected:
  static void make_switch(World& world, Net net) {
    if (net == Net::External) {
      static_cast<void>(create_switch({.name = "br0", .mode = SwitchMode::External, .uplink = "eth0"}));
      world.add_guests({.net4 = "192.0.2", .net6 = "fd02::"});
    } else if (net == Net::Private) {
      static_cast<void>(create_switch({.name = "br0", .mode = SwitchMode::Private}));
      // They pretend that the host's and outside's addresses are on their wire.
      world.add_guests({.routes = "ip route add 192.0.2.0/24 dev eth0 && ip -6 route add fd02::/64 dev eth0"});
      EXPECT_THAT(output_of("ip -br addr show br0"), testing::Not(testing::HasSubstr("/")));
    } else {
      static_cast<void>(
          create_switch({.name = "br0",
                         .addresses = {parse_host_address("10.0.0.1/24", ""), parse_host_address("fd10::1/64", "")},
                         .nat = net == Net::InternalNat}));
      world.add_guests({.routes = "ip route add default via 10.0.0.1 && ip -6 route add default via fd10::1"});
    }
    const bool internal = net == Net::Internal || net == Net::InternalNat;
    world.parties["host"] = internal ? Party{.ip4 = "10.0.0.1", .ip6 = "fd10::1", .broadcast = "10.0.0.255"}
                                     : Party{.ip4 = "192.0.2.1", .ip6 = "fd02::1", .broadcast = "192.0.2.255"};
  }
  /// On an external switch somebody outside is in VLAN 10, too.
  static void use_vlans(World& world, const Case& it) {
    Rtnetlink netlink;
    const auto access = [&](const char* port, std::uint16_t vlan) {
      EXPECT_EQ(set_vlans(netlink, netlink.find(port)->index, {.ranges = {{vlan, vlan}}, .native = vlan}), 0);
    };
    access("port-a", 10);
    access("port-b", it.vlans == Vlans::Same ? 10 : 20);
    if (it.net == Net::External) {
      world.outside.run(
          "ip link add link eth0 name eth0.10 type vlan id 10 && ip link set eth0.10 up && "
          "ip addr del 192.0.2.9/24 dev eth0 && ip addr del fd02::9/64 dev eth0 && "
          "ip addr add 192.0.2.9/24 dev eth0.10 && ip addr add fd02::9/64 dev eth0.10 nodad");
      world.parties["outside"].device = "eth0.10";
    }
  }
};

TEST_P(Reach, IsWhatModeVlansAndIsolationLetThrough) {
  in_namespace([&] {
    const auto& it = GetParam();
    World world;
    make_switch(world, it.net);
    Rtnetlink netlink;
    if (it.vlans != Vlans::None) {
      if (!read_bridge_vlans(netlink, netlink.find("br0")->index).filtering) {
        GTEST_SKIP()
            << "this kernel's bridges do not tell VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING); boot.net does it";
      }
      use_vlans(world, it);
    }
    for (const bool isolated : {false, true}) {
      SCOPED_TRACE(isolated ? "isolated" : "not isolated");
      for (const auto* port : {"port-a", "port-b"}) {
        EXPECT_EQ(isolated ? isolate(netlink, netlink.find(port)->index) : 0, 0);
      }
      const auto guests = isolated ? kNone : it.guests;
      const Reached expected{{"a>b", guests},
                             {"b>a", guests},
                             {"a>host", it.to_host},
                             {"host>a", it.from_host},
                             {"b>host", it.to_host},
                             {"host>b", it.from_host},
                             {"a>outside", it.a_to_outside},
                             {"outside>a", it.outside_to_a},
                             {"b>outside", it.b_to_outside},
                             {"outside>b", it.outside_to_b}};
      EXPECT_EQ(reach(world.parties, expected, Neighbours::Asked), expected);
      Reached without_arp = expected;
      for (auto& [pair, ways] : without_arp) {
        std::erase(ways, 'A');
      }
      EXPECT_EQ(reach(world.parties, expected, Neighbours::Given), without_arp);
    }
    if (it.net == Net::InternalNat && it.vlans == Vlans::None) {
      world.outside.run("ip route del 10.0.0.0/24");       // who is outside knows nobody behind the host
      world.a.run("ping -c 1 -W 5 192.0.2.9 >/dev/null");  // and yet the answers find their way back
    }
  });
}

// net, VLANs | a and b | guests > host, host > guests | a > outside, outside > a | b > outside, outside > b
INSTANTIATE_TEST_SUITE_P(
    All, Reach,
    testing::Values(Case{Net::External, Vlans::None, kAll, kAll, kAll, kAll, kAll, kAll, kAll},
                    Case{Net::External, Vlans::Same, kAll, kNone, kNone, kAll, kAll, kAll, kAll},
                    Case{Net::External, Vlans::Different, kNone, kNone, kNone, kAll, kAll, kNone, kNone},
                    Case{Net::Internal, Vlans::None, kAll, kAll, kAll, kNone, kNone, kNone, kNone},
                    Case{Net::Internal, Vlans::Same, kAll, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::Internal, Vlans::Different, kNone, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::InternalNat, Vlans::None, kAll, kAll, kAll, "4", kNone, "4", kNone},
                    Case{Net::InternalNat, Vlans::Same, kAll, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::InternalNat, Vlans::Different, kNone, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::Private, Vlans::None, kAll, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::Private, Vlans::Same, kAll, kNone, kNone, kNone, kNone, kNone, kNone},
                    Case{Net::Private, Vlans::Different, kNone, kNone, kNone, kNone, kNone, kNone, kNone}),
    name_of);

}  // namespace
}  // namespace martlet
