#include "net/port.h"

#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "net/port_bridge.h"
#include "net/port_shaper.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

/// A remark on the interface: for those who may not read its filter, and for what no filter says.
/// "martlet port of 52:54:00:12:34:56 pcap=FILE"
constexpr std::string_view kAlias = "martlet port of ";
constexpr std::string_view kAliasPcap = " pcap=";
constexpr std::size_t kMacLength = 17;
constexpr std::size_t kLongestPcap = 255 - kAlias.size() - kMacLength - kAliasPcap.size();  // IFALIASZ - 1

std::string to_alias(const PortRequest& request) {
  const auto& pcap = request.policy.pcap;
  return fmt::format("{}{}{}{}", kAlias, to_string(request.guest), pcap.empty() ? "" : kAliasPcap, pcap);
}

/// The host's own way out limits what the bridge can carry, whatever its MTU says.
void refuse_large_mtu(Rtnetlink& netlink, const Link& bridge, const PortRequest& request) {
  const auto refuse = [&](const Link& narrow) {
    if (request.policy.mtu && *request.policy.mtu > narrow.mtu) {
      throw HostError{fmt::format("{}: mtu={}: the network carries {}; raise it there first: ip link set {} mtu {}",
                                  request.what, *request.policy.mtu, narrow.mtu, narrow.name, *request.policy.mtu)};
    }
  };
  for (const auto& link : netlink.links()) {
    if (link.master == bridge.index && link.kind != "tun") {
      refuse(link);
    }
  }
  refuse(bridge);
}

}  // namespace

void refuse_bad_name(const std::string& name, std::string_view what) {
  if (name.size() >= IFNAMSIZ) {
    throw HostError{fmt::format("{}{}: the name is too long, Linux allows {} characters", what, name, IFNAMSIZ - 1)};
  }
  if (name.empty() || name == "." || name == ".." || name.find_first_of("/: \t\n%") != std::string::npos) {
    throw HostError{fmt::format("{}{}: not a name for a network interface", what, name)};
  }
}

std::string kind_of(const Link& link) {
  if (link.kind.empty()) {
    return (link.flags & IFF_LOOPBACK) != 0 ? "the loopback interface" : "a network card";
  }
  return link.kind == "tun" ? "a TAP or TUN" : "of kind " + link.kind;
}

Link find_bridge(Rtnetlink& netlink, const PortRequest& request) {
  const auto fail = [&](const std::string& why) { throw HostError{fmt::format("{}: {}", request.what, why)}; };
  const auto& name = request.bridge;
  const auto bridge = netlink.find(name);
  if (!bridge) {
    fail(fmt::format("there is no such interface; make one: ip link add {} type bridge && ip link set {} up", name,
                     name));
  }
  if (bridge->kind == "openvswitch" || bridge->kind == "tun") {  // a TAP is what Open vSwitch's own datapath shows
    fail(
        fmt::format("is {}, whose ports are made by: ip tuntap add tap0 mode tap && ip link set tap0 up && "
                    "ovs-vsctl add-port {} tap0; then -n tap=tap0",
                    bridge->kind == "tun" ? "a TAP or TUN, not a bridge; or is it Open vSwitch's (datapath_type=netdev)"
                                          : "an Open vSwitch bridge",
                    name));
  }
  if (bridge->kind != "bridge") {
    fail(fmt::format("is {}, not a bridge", kind_of(*bridge)));
  }
  if (request.policy.vlans.any() && !read_bridge_vlans(netlink, bridge->index).filtering) {
    fail(
        fmt::format("this bridge does not tell VLANs apart; make it: ip link set {} type bridge vlan_filtering 1 "
                    "(Linux with CONFIG_BRIDGE_VLAN_FILTERING)",
                    name));
  }
  if (request.policy.pcap.size() > kLongestPcap) {
    fail(fmt::format("pcap=: a port remembers {} characters of a file's name; give a shorter one", kLongestPcap));
  }
  refuse_large_mtu(netlink, *bridge, request);
  return *bridge;
}

std::optional<PortGuard> plug_in(Rtnetlink& netlink, const Link& tap, const Link& bridge, const PortRequest& request,
                                 const PortLife& life) {
  const auto need = [&](int error, std::string_view to) {
    if (error != 0) {
      fail_errno(error, fmt::format("{}: cannot {} {}", request.what, to, tap.name));
    }
  };
  const auto& policy = request.policy;
  [[maybe_unused]] const int no_ipv6 = netlink.forbid_ipv6_address(tap.index);
  // A bridge without an address of its own takes the lowest of its ports': 0xfe in front keeps it what it is.
  MacAddress address = request.guest;
  address[0] = 0xfe;
  const std::uint32_t mtu = policy.mtu.value_or(static_cast<std::uint16_t>(std::min<std::uint32_t>(bridge.mtu, 65535)));
  need(netlink.change(tap.index, {.address = address, .alias = to_alias(request), .mtu = mtu}),
       "set address and MTU of");
  std::optional<PortGuard> guard;
  if (policy.spoof == Spoof::Deny || life.through != 0) {
    guard.emplace(PortGuard::Port{.name = tap.name,
                                  .index = tap.index,
                                  .guest = policy.spoof == Spoof::Deny ? std::optional{request.guest} : std::nullopt,
                                  .vlans = policy.vlans,
                                  .through = life.through},
                  life.life);
  }
  if (policy.rate != 0) {
    const int error = shape(netlink, tap.index, mtu, {.rate = policy.rate, .burst = policy.burst});
    if (error == ENOENT) {
      throw HostError{
          fmt::format("{}: rate= needs the kernel's token bucket filter; load it: modprobe sch_tbf", request.what)};
    }
    need(error, "limit the rate of");
  }
  need(netlink.change(tap.index, {.master = bridge.index}), "put on the bridge");
  if (policy.vlans.any()) {
    need(set_vlans(netlink, tap.index, policy.vlans), "set the VLANs of");
  }
  if (policy.isolation == Isolation::On) {
    need(isolate(netlink, tap.index), "isolate");
  }
  need(netlink.change(tap.index, {.state = LinkChange::State::Up}), "set up");
  return guard;
}

std::optional<PortMark> read_port_mark(const Link& port) {
  if (port.kind != "tun" || !port.alias.starts_with(kAlias)) {
    return std::nullopt;
  }
  const auto mark = std::string_view{port.alias}.substr(kAlias.size());
  const auto pcap = mark.substr(std::min(kMacLength, mark.size()));
  return PortMark{.guest = parse_mac(mark.substr(0, kMacLength), port.name + ": its alias: "),
                  .pcap = std::string{pcap.starts_with(kAliasPcap) ? pcap.substr(kAliasPcap.size()) : ""}};
}

PortPolicy read_port(Rtnetlink& netlink, const Link& port) {
  const auto links = netlink.links();
  const auto bridge = std::ranges::find(links, port.master, &Link::index);
  if (port.master == 0 || bridge == links.end() || bridge->kind != "bridge") {
    throw HostError{fmt::format("{} is no port of a bridge", port.name)};
  }
  PortPolicy policy;
  policy.mtu = static_cast<std::uint16_t>(std::min<std::uint32_t>(port.mtu, 65535));
  const auto guard = PortGuard::read(port.name, port.index);
  policy.spoof = guard ? Spoof::Deny : Spoof::Allow;
  if (const auto mark = read_port_mark(port)) {
    policy.mac = mark->guest;
    policy.pcap = mark->pcap;
  }
  if (guard) {
    policy.mac = guard->guest;
  }
  if (const auto shape = read_shape(netlink, port.index)) {
    policy.rate = shape->rate;
    policy.burst = shape->burst;
  }
  const auto settings = read_bridge_port(netlink, port.index);
  policy.isolation = settings.isolation;
  const auto vlans = read_bridge_vlans(netlink, bridge->index);
  const auto given = PortVlans{.ranges = {{vlans.of_new_ports, vlans.of_new_ports}}, .native = vlans.of_new_ports};
  if (vlans.filtering && settings.vlans != given) {
    policy.vlans = settings.vlans;
  }
  return policy;
}

}  // namespace martlet
