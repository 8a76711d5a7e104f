#include "net/switch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "net/bridge.h"
#include "net/dnsmasq.h"
#include "net/host_network.h"
#include "net/network_turn.h"
#include "net/networkd.h"
#include "net/port_bridge.h"
#include "net/switch_filter.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kMaxAlias = 256;  // IFALIASZ

[[noreturn]] void fail(std::string_view name, std::string_view why) {
  throw HostError{fmt::format("switch {}: {}", name, why)};
}

/// Throws unless `error`, of a request about switch `name`, is 0.
void expect_done(int error, std::string_view name, std::string_view what) {
  if (error == EPERM) {
    fail(name, fmt::format("cannot {}: needs CAP_NET_ADMIN; run as root", what));
  }
  if (error != 0) {
    fail(name, fmt::format("cannot {}: {}", what, std::generic_category().message(error)));
  }
}

void refuse_nonsense(const SwitchOptions& wanted) {
  const auto& name = wanted.name;
  if (name.size() >= IFNAMSIZ) {
    fail(name, fmt::format("the name is too long, Linux allows {} characters", IFNAMSIZ - 1));
  }
  if (name.empty() || name == "." || name == ".." || name.find_first_of("/: \t\n%") != std::string::npos) {
    fail(name, "not a name for a network interface");
  }
  const bool internal = wanted.mode == SwitchMode::Internal;
  if ((wanted.mode == SwitchMode::External) == wanted.uplink.empty()) {
    fail(name, wanted.uplink.empty() ? "external wants the network card that leads there: --uplink NIC"
                                     : "only --mode external has an --uplink");
  }
  if (!internal && !wanted.addresses.empty()) {
    fail(name, wanted.mode == SwitchMode::External ? "the host's addresses come from the uplink: no --address"
                                                   : "private is without the host: no --address");
  }
  if (!internal && (wanted.dhcp || wanted.nat)) {
    fail(name, "--dhcp and --nat are for --mode internal");
  }
  const bool ipv4 = std::ranges::any_of(wanted.addresses, [](const auto& it) { return it.family == AF_INET; });
  if (wanted.nat && !ipv4) {
    fail(name, "--nat wants an IPv4 --address, like 10.0.0.1/24");
  }
  const auto odd = [](const auto& it) { return it.family == AF_INET ? it.prefix > 30 : it.prefix != 64; };
  if (wanted.dhcp && std::ranges::any_of(wanted.addresses, odd)) {
    fail(name, "--dhcp wants an IPv4 network of /30 or larger, and an IPv6 network of /64");
  }
  if (wanted.persistent && wanted.mode == SwitchMode::Private) {
    fail(name,
         "systemd-networkd cannot keep the host out of it, so private is not --persistent; run this at each boot");
  }
  if (wanted.dhcp && wanted.addresses.empty()) {
    fail(name, "--dhcp wants an --address, like 10.0.0.1/24, whose network it hands out");
  }
  if (to_alias({.finished = false, .options = wanted, .uplink_was_down = true}).size() >= kMaxAlias) {
    fail(name, "has too many addresses");
  }
}

/// No network may be reached by two interfaces.
void refuse_taken(Rtnetlink& netlink, const SwitchOptions& wanted) {
  const auto within = [](HostAddress one, const HostAddress& other) {
    one.prefix = other.prefix;
    return one.network() == other.network();
  };
  for (std::size_t i = 0; i < wanted.addresses.size(); ++i) {
    const auto& address = wanted.addresses[i];
    const auto clash = [&](const HostAddress& other) {
      return address.family == other.family && (within(address, other) || within(other, address));
    };
    const auto others = host_addresses();
    const auto taken = std::ranges::find_if(others, [&](const auto& it) { return clash(it.address); });
    if (taken != others.end()) {
      const auto links = netlink.links();
      const auto owner = std::ranges::find(links, taken->index, &Link::index);
      fail(wanted.name,
           fmt::format("the address {} is in use: {} has {}", to_string(address),
                       owner == links.end() ? "another interface" : owner->name, to_string(taken->address)));
    }
    if (std::any_of(wanted.addresses.begin(), wanted.addresses.begin() + static_cast<std::ptrdiff_t>(i), clash)) {
      fail(wanted.name, fmt::format("the address {} is in the same network as another", to_string(address)));
    }
  }
}

/// The uplink, if it can be one.
Link find_uplink(Rtnetlink& netlink, const SwitchOptions& wanted) {
  const auto link = netlink.find(wanted.uplink);
  const auto refuse = [&](std::string_view why) { fail(wanted.name, fmt::format("uplink {} {}", wanted.uplink, why)); };
  if (!link) {
    refuse("is not there; ip link tells which are");
  }
  if (link->master != 0) {
    const auto links = netlink.links();
    const auto master = std::ranges::find(links, link->master, &Link::index);
    refuse(fmt::format("is a port of {} already", master == links.end() ? "another interface" : master->name));
  }
  if ((link->flags & IFF_LOOPBACK) != 0 || link->kind == "bridge") {
    refuse(link->kind == "bridge" ? "is a bridge itself" : "is the loopback interface, which leads nowhere");
  }
  if (link->address == MacAddress{}) {
    refuse("is not Ethernet, and cannot be a port of a bridge");
  }
  if (!wanted.may_move_default_route && carries_default_route(link->index)) {
    refuse(
        "carries this host's default route: should anything go wrong the host is cut off; to do it: "
        "--move-default-route");
  }
  return *link;
}

std::vector<Link> ports_of(const std::vector<Link>& links, const Link& bridge) {
  std::vector<Link> ports;
  std::ranges::copy_if(links, std::back_inserter(ports), [&](const Link& link) { return link.master == bridge.index; });
  return ports;
}

/// What create_switch() leaves behind when it is killed before it has put its mark: there is nothing to lose.
bool is_bare(Rtnetlink& netlink, const Link& bridge) {
  return bridge.alias.empty() && (bridge.flags & IFF_UP) == 0 && ports_of(netlink.links(), bridge).empty();
}

void set_mark(Rtnetlink& netlink, int index, const SwitchMark& mark) {
  expect_done(netlink.change(index, {.alias = to_alias(mark)}), mark.options.name, "write its alias");
}

/// Gives the uplink back what the host had on it.
void leave_uplink(Rtnetlink& netlink, const Link& bridge, const SwitchMark& mark) {
  const auto& name = bridge.name;
  auto uplink = netlink.find(mark.options.uplink);
  if (uplink && mark.uplink_was_down && uplink->master == bridge.index) {
    expect_done(netlink.change(uplink->index, {.state = LinkChange::State::Down}), name, "set its uplink down");
    uplink = netlink.find(mark.options.uplink);
  }
  if (!uplink) {
    return;
  }
  move_host_network(netlink, bridge, *uplink);
  if (uplink->master == bridge.index) {
    expect_done(netlink.change(uplink->index, {.master = 0}), name, "take its uplink off");
  }
}

/// What may be left when somebody deletes the interface without us.
void clear_surroundings(const std::string& name) {
  stop_dnsmasq(name);
  remove_switch_filter(name);
}

/// Takes away `bridge` and all that Martlet put around it, as far as it is there. What its filter forbids stays so
/// until nothing can pass.
void tear_down(Rtnetlink& netlink, const Link& bridge, SwitchMark mark) {
  mark.finished = false;
  set_mark(netlink, bridge.index, mark);
  if (mark.options.mode == SwitchMode::External) {
    leave_uplink(netlink, bridge, mark);
  } else {
    expect_done(netlink.change(bridge.index, {.state = LinkChange::State::Down}), bridge.name, "set it down");
  }
  clear_surroundings(bridge.name);
  static_cast<void>(remove_networkd_files(bridge.name));
  if (const int error = netlink.remove(bridge.index); error != ENODEV) {
    expect_done(error, bridge.name, "delete it");
  }
}

void make_persistent(Rtnetlink& netlink, const SwitchMark& mark, SwitchNews& news) {
  const auto& name = mark.options.name;
  const auto bridge = netlink.find(name);
  NetworkdSwitch again{.mark = mark, .address = bridge ? bridge->address : MacAddress{}};
  for (const auto& it : host_addresses()) {
    if (!bridge || it.index != bridge->index || it.is_link_local) {
      continue;
    }
    if (it.is_lasting) {
      again.addresses.push_back(it.address);
    }
    again.leases_ipv4 |= !it.is_lasting && it.address.family == AF_INET;
  }
  again.gateways = bridge ? default_gateways(bridge->index) : std::vector<std::string>{};
  again.tells_vlans_apart = bridge && read_bridge_vlans(netlink, bridge->index).filtering;
  write_networkd_files(again);
  news.lines.push_back(
      fmt::format("switch {}: systemd-networkd makes it again at boot, if it is enabled: "
                  "/etc/systemd/network/10-martlet-{}.*",
                  name, name));
}

// --- What makes a bridge a switch of each mode

/// IPv4 packets go on from one interface to another. Says so where they did not before.
void forward_packets(const std::string& name, SwitchNews& news) {
  constexpr const char* kSwitch = "/proc/sys/net/ipv4/ip_forward";
  char now = 0;
  if (::read(open_file(kSwitch, O_RDONLY).get(), &now, 1) == 1 && now != '0') {
    return;
  }
  if (::write(open_file(kSwitch, O_WRONLY).get(), "1", 1) != 1) {
    fail_errno(errno, fmt::format("switch {}: cannot set {}", name, kSwitch));
  }
  news.lines.push_back(
      fmt::format("switch {}: this host forwards IPv4 packets from now on, and when the switch is gone, "
                  "too (net.ipv4.ip_forward=1)",
                  name));
}

/// An internal or a private one: what of it is not there yet. Returns what that was.
std::vector<std::string> furnish(Rtnetlink& netlink, const Link& bridge, const SwitchOptions& wanted) {
  std::vector<std::string> added;
  if (wanted.mode == SwitchMode::Private) {
    [[maybe_unused]] const int without_ipv6 = netlink.forbid_ipv6_address(bridge.index);
  }
  if (!has_switch_filter(wanted.name)) {
    add_switch_filter(wanted);
    added.emplace_back("its filter");
  }
  expect_done(netlink.change(bridge.index, {.state = LinkChange::State::Up}), bridge.name, "set it up");
  for (const auto& address : wanted.addresses) {
    if (const int error = add_host_address(netlink, bridge.index, address); error != EEXIST) {
      expect_done(error, bridge.name, "add " + to_string(address));
      added.push_back(to_string(address));
    }
  }
  if (wanted.dhcp && !dnsmasq_runs(wanted.name)) {
    start_dnsmasq(wanted);
    added.emplace_back("dnsmasq");
  }
  return added;
}

/// A switch that is there, but for what others took away: a reload of nftables.service, for one, takes the filter.
void mend(Rtnetlink& netlink, const Link& bridge, const SwitchOptions& wanted, SwitchNews& news) {
  const bool external = wanted.mode == SwitchMode::External;
  const auto added = external ? std::vector<std::string>{} : furnish(netlink, bridge, wanted);
  if (wanted.nat) {
    forward_packets(wanted.name, news);
  }
  news.lines.push_back(
      added.empty() ? fmt::format("switch {} is there already, just so", wanted.name)
                    : fmt::format("switch {} was there without {}: made again", wanted.name, fmt::join(added, ", ")));
}

void make_external(Rtnetlink& netlink, const Link& bridge, const Link& uplink) {
  // Neighbours and DHCP servers know the host by its address. It comes with the uplink's IPv6 addresses, too.
  [[maybe_unused]] const int without_ipv6 = netlink.forbid_ipv6_address(bridge.index);
  const LinkChange like_uplink{.address = uplink.address, .mtu = uplink.mtu, .state = LinkChange::State::Up};
  expect_done(netlink.change(bridge.index, like_uplink), bridge.name, "set it up");
  // One by one: Linux 6.1 sets it up first, and leaves it so when it then is no port.
  const int error = netlink.change(uplink.index, {.master = bridge.index});
  if (error == EOPNOTSUPP) {
    fail(bridge.name,
         fmt::format("uplink {} cannot be a port of a bridge, as wireless cards cannot: use --mode internal --nat",
                     uplink.name));
  }
  expect_done(error, bridge.name, "make a port of " + uplink.name);
  expect_done(netlink.change(uplink.index, {.state = LinkChange::State::Up}), bridge.name, "set up " + uplink.name);
  if (const auto vlans = read_bridge_vlans(netlink, bridge.index); vlans.filtering) {  // it carries what there are
    const PortVlans all{.ranges = {{1, 4094}}, .native = vlans.of_new_ports};
    expect_done(set_vlans(netlink, uplink.index, all), bridge.name, "give all VLANs to " + uplink.name);
  }
  if (const auto now_up = netlink.find(bridge.name)) {
    move_host_network(netlink, uplink, *now_up);
  }
}

}  // namespace

SwitchNews create_switch(const SwitchOptions& asked) {
  refuse_nonsense(asked);
  SwitchNews news;
  const NetworkTurn turn;
  Rtnetlink netlink;
  auto wanted = asked;
  if (const auto uplink = asked.uplink.empty() ? std::nullopt : netlink.find(asked.uplink)) {
    wanted.uplink = uplink->name;  // asked for by another of its names
  }
  SwitchMark mark{.options = wanted};
  if (const auto there = netlink.find(wanted.name)) {
    const auto found = read_mark(*there);
    if (!found && (there->kind != "bridge" || !is_bare(netlink, *there))) {
      fail(wanted.name, there->kind == "bridge"
                            ? "that bridge is there, and not made by martlet net; use it as it is, or another name"
                            : "the name is taken by another interface");
    }
    if (found && found->finished) {
      mark.finished = true;
      mark.uplink_was_down = found->uplink_was_down;
      if (to_alias(mark) != there->alias) {
        fail(wanted.name, fmt::format("is there with other settings ('{}'); to change them: martlet net delete {}",
                                      there->alias, wanted.name));
      }
      mend(netlink, *there, wanted, news);
      return news;
    }
    tear_down(netlink, *there, found.value_or(SwitchMark{.options = {.name = wanted.name}}));
    news.lines.push_back(fmt::format("switch {} was half made: begun anew", wanted.name));
  }

  refuse_taken(netlink, wanted);
  if (wanted.dhcp) {
    refuse_without_dnsmasq(wanted.name);
  }
  const auto uplink = wanted.uplink.empty() ? std::nullopt : std::optional{find_uplink(netlink, wanted)};
  mark.uplink_was_down = uplink && (uplink->flags & IFF_UP) == 0;
  const int error = make_bridge(netlink, wanted.name);
  if (error == EOPNOTSUPP) {
    fail(wanted.name, "this kernel has no bridges; load the module: modprobe bridge");
  }
  expect_done(error, wanted.name, "make a bridge");
  const auto bridge = netlink.find(wanted.name);
  if (!bridge) {
    fail(wanted.name, "somebody deleted it while it was made");
  }
  try {
    set_mark(netlink, bridge->index, mark);
    clear_surroundings(wanted.name);
    if (uplink) {
      make_external(netlink, *bridge, *uplink);
    } else {
      furnish(netlink, *bridge, wanted);
    }
    if (wanted.persistent) {
      make_persistent(netlink, mark, news);
    }
    mark.finished = true;
    set_mark(netlink, bridge->index, mark);
    if (wanted.nat) {  // last: it is not undone
      forward_packets(wanted.name, news);
    }
  } catch (const HostError& trouble) {
    try {
      tear_down(netlink, *bridge, mark);
    } catch (const HostError& more) {
      throw HostError{fmt::format("{}; and it could not be undone ({}): martlet net delete {}", trouble.what(),
                                  more.what(), wanted.name)};
    }
    throw;
  }
  news.lines.push_back(
      fmt::format("switch {} is made; guests get on it by: martlet run -n bridge={}", wanted.name, wanted.name));
  return news;
}

SwitchNews delete_switch(const SwitchRemoval& removal) {
  const auto& name = removal.name;
  SwitchNews news;
  const NetworkTurn turn;
  Rtnetlink netlink;
  const auto bridge = netlink.find(name);
  if (!bridge) {
    clear_surroundings(name);
    const bool at_boot = remove_networkd_files(name) != 0;
    news.lines.push_back(
        fmt::format("there is no switch {}{}", name, at_boot ? "; nor is it made at boot any more" : ""));
    return news;
  }
  const auto mark = read_mark(*bridge);
  if (!mark && (bridge->kind != "bridge" || !is_bare(netlink, *bridge))) {
    fail(name, bridge->kind == "bridge"
                   ? "was not made by martlet net; to delete it all the same: ip link delete " + name
                   : "is no switch, but another interface");
  }
  if (!removal.force) {
    for (const auto& port : ports_of(netlink.links(), *bridge)) {
      if (!mark || port.name != mark->options.uplink) {
        fail(name, fmt::format("{} is on it; end its VM first, or --force", port.name));
      }
    }
  }
  if (mark && !mark->options.uplink.empty() && !removal.force && !netlink.find(mark->options.uplink)) {
    fail(name,
         fmt::format("its uplink {} is gone, and what it had would be lost; to do it: --force", mark->options.uplink));
  }
  tear_down(netlink, *bridge, mark.value_or(SwitchMark{.options = {.name = name}}));
  news.lines.push_back(fmt::format("switch {} is deleted", name));
  return news;
}

}  // namespace martlet
