// Who reaches whom: each mode of a switch, by ARP, IPv4, IPv6 and broadcast. Guests are network namespaces with a wire
// to the switch; what may not arrive is seen not to, by a capture at the far end.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "net/port_bridge.h"
#include "net/rtnetlink.h"
#include "tests/net/world.h"

namespace martlet {
namespace {

using namespace test;

constexpr std::uint16_t kPort = 7777;

/// One who sends and listens: in a namespace, or in the test's own, the host's.
struct Party {
  const Namespace* where = nullptr;
  std::string device{};  ///< guests' and others' only
  std::string ip4{};
  std::string ip6{};
  std::string broadcast{};

  template <class Body>
  auto inside(Body body) const {
    return where != nullptr ? where->inside(body) : body();
  }
};
using Parties = std::map<std::string, Party>;

Fd open_socket(int family, int type, int protocol = 0) {
  return Fd{check(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol), "socket")};
}

/// All that is waiting in a socket.
std::vector<std::string> read_all(const Fd& socket) {
  std::vector<std::string> all;
  std::array<char, 2048> bytes{};
  for (ssize_t got = 0; (got = ::recv(socket.get(), bytes.data(), bytes.size(), 0)) >= 0;) {
    all.emplace_back(bytes.data(), static_cast<std::size_t>(got));
  }
  return all;
}

/// What a party hears: its IPv4 and IPv6, and its wire.
class Ears {
 public:
  explicit Ears(const Party& party) {
    party.inside([&] {
      for (const int family : {AF_INET, AF_INET6}) {
        ip_.push_back(open_socket(family, SOCK_DGRAM));
        const int yes = 1;
        sockaddr_in6 any{.sin6_family = static_cast<sa_family_t>(family), .sin6_port = htons(kPort)};
        if (family == AF_INET6) {
          ::setsockopt(ip_.back().get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
        }
        check(::bind(ip_.back().get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), "bind");
      }
      if (party.where != nullptr) {
        wire_ = open_socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
        sockaddr_ll on{.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
        on.sll_ifindex = Rtnetlink{}.find(party.device)->index;
        check(::bind(wire_.get(), reinterpret_cast<const sockaddr*>(&on), sizeof on), "bind");
      }
      return 0;
    });
  }
  /// Takes what has come.
  void listen() {
    for (const auto& socket : ip_) {
      for (auto& text : read_all(socket)) {
        heard_.insert(std::move(text));
      }
    }
    for (auto& frame : wire_ ? read_all(wire_) : std::vector<std::string>{}) {
      frames_.push_back(std::move(frame));
    }
  }
  [[nodiscard]] bool heard(const std::string& text) const { return heard_.contains(text); }
  /// Whether its wire carried this to it.
  [[nodiscard]] bool seen(const std::string& text) const {
    return std::ranges::any_of(frames_, [&](const auto& frame) { return frame.find(text) != std::string::npos; });
  }

 private:
  std::vector<Fd> ip_;
  Fd wire_;
  std::set<std::string> heard_;
  std::vector<std::string> frames_;
};

/// "a>b 4", in brackets so that none is part of another.
std::string label(const std::string& from, const std::string& to, char how) {
  return "[" + from + ">" + to + " " + how + "]";
}

void send(const Party& from, const std::string& to, const std::string& text, bool broadcast) {
  from.inside([&] {
    const bool six = to.find(':') != std::string::npos;
    const auto socket = open_socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM);
    const int yes = 1;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    if (broadcast && from.where != nullptr) {  // a guest may send whatever it wants
      ::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, from.device.data(),
                   static_cast<socklen_t>(from.device.size()));
    }
    sockaddr_in6 target6{.sin6_family = AF_INET6, .sin6_port = htons(kPort)};
    sockaddr_in target4{.sin_family = AF_INET, .sin_port = htons(kPort)};
    ::inet_pton(six ? AF_INET6 : AF_INET, to.c_str(),
                six ? static_cast<void*>(&target6.sin6_addr) : static_cast<void*>(&target4.sin_addr));
    const auto* const target =
        six ? reinterpret_cast<const sockaddr*>(&target6) : reinterpret_cast<sockaddr*>(&target4);
    // Where there is no way to go, that is an answer, too.
    return ::sendto(socket.get(), text.data(), text.size(), 0, target, six ? sizeof target6 : sizeof target4);
  });
}

/// Whether `from` has learnt the Ethernet address of `to`: its question and the answer have arrived.
bool knows(const Party& from, const Party& to) {
  return from.inside([&] {
    return shell_says(fmt::format("ip neigh show to {} {}{} | grep -q lladdr", to.ip4,
                                  from.device.empty() ? "" : "dev ", from.device));
  });
}

/// Sends everything to everybody and tells what arrived: "a>b A46B" says that ARP, IPv4, IPv6 and broadcasts did.
std::map<std::string, std::string> reach(const Parties& parties, const std::map<std::string, std::string>& expected) {
  std::map<std::string, Ears> ears;
  for (const auto& [name, party] : parties) {
    ears.try_emplace(name, party);
  }
  const auto each_pair = [&](const auto& use) {
    for (const auto& [pair, ways] : expected) {
      const auto from = pair.substr(0, pair.find('>'));
      const auto to = pair.substr(pair.find('>') + 1);
      use(pair, from, to);
    }
  };
  each_pair([&](const std::string&, const std::string& from, const std::string& to) {
    const auto& sender = parties.at(from);
    send(sender, parties.at(to).ip4, label(from, to, '4'), false);
    send(sender, parties.at(to).ip6, label(from, to, '6'), false);
    const auto everybody = sender.where == nullptr ? parties.at(to).broadcast : std::string{"255.255.255.255"};
    send(sender, everybody, label(from, to, 'B'), true);
  });
  const auto heard = [&] {
    std::map<std::string, std::string> all;
    for (auto& [name, ear] : ears) {
      ear.listen();
    }
    each_pair([&](const std::string& pair, const std::string& from, const std::string& to) {
      auto& ways = all[pair];
      ways += knows(parties.at(from), parties.at(to)) ? "A" : "";
      for (const char way : {'4', '6', 'B'}) {
        ways += ears.at(to).heard(label(from, to, way)) ? std::string{way} : "";
      }
    });
    return all;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  while (heard() != expected && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  std::this_thread::sleep_for(std::chrono::milliseconds{300});  // for what may not come and yet does
  const auto result = heard();
  each_pair([&](const std::string& pair, const std::string& from, const std::string& to) {
    for (const char way : {'4', '6', 'B'}) {
      const bool may = expected.at(pair).find(way) != std::string::npos;
      EXPECT_FALSE(!may && ears.at(to).seen(label(from, to, way))) << pair << " by " << way << " is on its wire";
    }
  });
  return result;
}

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

using Expected = std::map<std::string, std::string>;

TEST(Reach, OnAnExternalSwitchEverybodyReachesEverybody) {
  in_namespace([] {
    World world;
    static_cast<void>(create_switch({.name = "br0", .mode = SwitchMode::External, .uplink = "eth0"}));
    world.add_guests({.net4 = "192.0.2", .net6 = "fd02::"});
    world.parties["host"] = {.ip4 = "192.0.2.1", .ip6 = "fd02::1", .broadcast = "192.0.2.255"};
    const Expected expected{{"a>b", "A46B"},    {"b>a", "A46B"},       {"a>host", "A46B"},
                            {"host>a", "A46B"}, {"a>outside", "A46B"}, {"outside>a", "A46B"}};
    EXPECT_EQ(reach(world.parties, expected), expected);
  });
}

TEST(Reach, AVlanGoesOutWithItsTagAndStaysApart) {
  in_namespace([] {
    World world;
    static_cast<void>(create_switch({.name = "br0", .mode = SwitchMode::External, .uplink = "eth0"}));
    world.add_guests({.net4 = "192.0.2", .net6 = "fd02::"});
    world.parties["host"] = {.ip4 = "192.0.2.1", .ip6 = "fd02::1", .broadcast = "192.0.2.255"};
    Rtnetlink netlink;
    if (!read_bridge_vlans(netlink, netlink.find("br0")->index).filtering) {
      GTEST_SKIP() << "this kernel's bridges do not tell VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING); boot.net does it";
    }
    ASSERT_EQ(set_vlans(netlink, netlink.find("port-a")->index, {.ranges = {{10, 10}}, .native = 10}), 0);
    const Expected alone{{"a>b", ""}, {"b>a", ""}, {"a>host", ""}, {"host>a", ""}, {"b>host", "A46B"}};
    EXPECT_EQ(reach(world.parties, alone), alone);
    world.outside.run(
        "ip link add link eth0 name eth0.10 type vlan id 10 && ip link set eth0.10 up && "
        "ip addr del 192.0.2.9/24 dev eth0 && ip addr del fd02::9/64 dev eth0 && "
        "ip addr add 192.0.2.9/24 dev eth0.10 && ip addr add fd02::9/64 dev eth0.10 nodad");
    world.parties["outside"].device = "eth0.10";
    const Expected tagged{{"a>outside", "A46B"}, {"outside>a", "A46B"}, {"outside>b", ""}};
    EXPECT_EQ(reach(world.parties, tagged), tagged);
  });
}

TEST(Reach, OnAPrivateSwitchGuestsReachEachOtherAlone) {
  in_namespace([] {
    World world;
    static_cast<void>(create_switch({.name = "br0", .mode = SwitchMode::Private}));
    // They pretend that the host's and outside's addresses are on their wire.
    world.add_guests({.routes = "ip route add 192.0.2.0/24 dev eth0 && ip -6 route add fd02::/64 dev eth0"});
    world.parties["host"] = {.ip4 = "192.0.2.1", .ip6 = "fd02::1", .broadcast = "192.0.2.255"};
    const Expected expected{{"a>b", "A46B"}, {"b>a", "A46B"},   {"a>host", ""},
                            {"host>a", ""},  {"a>outside", ""}, {"outside>a", ""}};
    EXPECT_EQ(reach(world.parties, expected), expected);
    EXPECT_THAT(output_of("ip -br addr show br0"), testing::Not(testing::HasSubstr("/")));
  });
}

SwitchOptions internal() {
  return {.name = "br0", .addresses = {parse_host_address("10.0.0.1/24", ""), parse_host_address("fd10::1/64", "")}};
}
const World::Guests kInternalGuests{.routes =
                                        "ip route add default via 10.0.0.1 && ip -6 route add default via fd10::1"};
const Party kInternalHost{.ip4 = "10.0.0.1", .ip6 = "fd10::1", .broadcast = "10.0.0.255"};

TEST(Reach, OnAnInternalSwitchGuestsReachTheHost) {
  in_namespace([] {
    World world;
    static_cast<void>(create_switch(internal()));
    world.add_guests(kInternalGuests);
    world.parties["host"] = kInternalHost;
    const Expected expected{{"a>b", "A46B"},    {"b>a", "A46B"},   {"a>host", "A46B"},
                            {"host>a", "A46B"}, {"a>outside", ""}, {"outside>a", ""}};
    EXPECT_EQ(reach(world.parties, expected), expected);
  });
}

TEST(Reach, WithNatGuestsReachOutsideAndNobodyReachesIn) {
  in_namespace([] {
    World world;
    auto options = internal();
    options.nat = true;
    static_cast<void>(create_switch(options));
    world.add_guests(kInternalGuests);
    world.parties["host"] = kInternalHost;
    const Expected expected{{"a>b", "A46B"},    {"b>a", "A46B"},    {"a>host", "A46B"},
                            {"host>a", "A46B"}, {"a>outside", "4"}, {"outside>a", ""}};
    EXPECT_EQ(reach(world.parties, expected), expected);
    world.a.run("ping -c 1 -W 5 192.0.2.9 >/dev/null");  // the answers find their way back
  });
}

}  // namespace
}  // namespace martlet
