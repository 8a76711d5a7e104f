#pragma once
// What tests do with switches.

#include <string>

#include "net/switch.h"
#include "tests/net/world.h"

namespace martlet::test {

inline HostAddress ip(const char* text) { return parse_host_address(text, ""); }
inline bool there_is(const std::string& interface) { return Rtnetlink{}.find(interface).has_value(); }
inline std::string refusal(const SwitchOptions& options) {
  return error_of([&] { static_cast<void>(create_switch(options)); });
}
inline void make(const SwitchOptions& options) { static_cast<void>(create_switch(options)); }
inline void unmake(const std::string& name) { static_cast<void>(delete_switch({.name = name})); }
/// The DHCP servers of this network namespace.
inline std::string servers() {
  return output_of(R"sh(for it in /proc/[0-9]*; do
    [ "$(readlink $it/ns/net)" != "$(readlink /proc/self/ns/net)" ] || tr '\0' ' ' <$it/cmdline
  done 2>/dev/null | grep -a -o 'martlet-dnsmasq-br[0-9]' | sort)sh");
}

/// An uplink with whatever a host may have on it.
inline void furnish_uplink() {
  run_shell(R"(set -e
    ip link set lo up
    ip link add eth0 mtu 1400 type veth peer name far; ip link set far up; ip link set eth0 up
    ip link add eth1 type veth peer name far1; ip link set far1 up; ip link set eth1 up
    ip addr add 10.0.0.2/24 brd + dev eth0
    ip addr add 10.0.0.3/24 dev eth0
    ip addr add 192.168.7.1/24 dev eth0 label eth0:1 metric 77
    ip addr add 10.9.0.1 peer 10.9.0.2/32 dev eth0 valid_lft 5000 preferred_lft 3000
    ip addr add 10.8.0.1/24 dev eth0 noprefixroute scope link
    ip addr add 10.1.1.1/24 dev eth1
    ip addr add fd00::2/64 dev eth0 nodad
    ip addr add fd00::3/64 dev eth0
    ip addr add fd01::3/64 dev eth0 valid_lft 4000 preferred_lft 2000 noprefixroute
    ip addr add fd02::3/64 dev eth0 metric 99
    ip addr add fd03::3/64 dev eth0 preferred_lft 0
    ip route add default via 10.0.0.1 dev eth0 metric 50 src 10.0.0.3
    ip route add default via 10.1.1.2 dev eth1 metric 500
    ip route add 172.16.0.0/12 via 10.0.0.9 dev eth0 mtu lock 1300 advmss 1200 initcwnd 20 proto static
    ip route add 172.20.0.0/16 dev eth0 scope link table 99
    ip route add 172.21.0.0/16 nexthop via 10.0.0.7 dev eth0 weight 2 nexthop via 10.1.1.7 dev eth1 weight 3
    ip route add 1.2.3.4/32 via 99.1.1.1 dev eth0 onlink
    ip route add 10.8.0.0/24 dev eth0 proto kernel scope link src 10.8.0.1 metric 100
    ip -6 route add default via fd00::1 dev eth0 metric 5 pref high
    ip -6 route add fd77::/64 via fe80::1 dev eth0 expires 3000
    ip -6 route add fd78::/64 nexthop via fd00::7 dev eth0 nexthop via fd00::8 dev eth0
    ip -6 route add fd01::/64 dev eth0 proto kernel metric 100
    for i in $(seq 100); do ip addr | grep -q tentative || break; sleep 0.1; done)");
}

inline SwitchOptions external() {
  return {.name = "br0", .mode = SwitchMode::External, .uplink = "eth0", .may_move_default_route = true};
}

}  // namespace martlet::test
