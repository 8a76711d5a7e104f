#include "vmm/net_show.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <net/if.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "net/bridge.h"
#include "net/host_network.h"
#include "net/port_bridge.h"
#include "net/port_guard.h"
#include "net/switch.h"
#include "net/tap_holder.h"
#include "vmm/base/error.h"
#include "vmm/control.h"

namespace martlet {
namespace {

using nlohmann::ordered_json;

ordered_json counters(const Link& link) {
  const auto& it = link.counters;
  return {{"rx_packets", it.rx_packets}, {"rx_bytes", it.rx_bytes}, {"rx_dropped", it.rx_dropped},
          {"tx_packets", it.tx_packets}, {"tx_bytes", it.tx_bytes}, {"tx_dropped", it.tx_dropped}};
}

ordered_json addresses_of(const Link& link, const std::vector<InterfaceAddress>& all) {
  auto texts = ordered_json::array();
  for (const auto& it : all) {
    if (it.index == link.index) {
      texts.push_back(to_string(it.address));
    }
  }
  return texts;
}

/// What list and show both tell.
ordered_json summary(const Link& link, const std::vector<Link>& links, const std::vector<InterfaceAddress>& addresses) {
  const auto mark = read_mark(link);
  ordered_json all{{"name", link.name},
                   {"mode", !mark             ? "foreign"  // made by others
                            : !mark->finished ? "unfinished"
                                              : std::string{to_word(mark->options.mode)}}};
  if (mark && !mark->options.uplink.empty()) {
    all["uplink"] = mark->options.uplink;
  }
  all["up"] = (link.flags & IFF_UP) != 0;
  all["addresses"] = addresses_of(link, addresses);
  all["dhcp"] = mark && mark->options.dhcp;
  all["nat"] = mark && mark->options.nat;
  all["ports"] = ordered_json::array();
  for (const auto& port : links) {
    if (port.master == link.index) {
      all["ports"].push_back(port.name);
    }
  }
  return all;
}

/// By PID.
std::map<pid_t, std::string> names_of_vms() {
  std::ifstream table{"/proc/net/unix"};
  std::map<pid_t, std::string> names;
  for (const auto& vm : parse_unix_sockets(std::string{std::istreambuf_iterator<char>{table}, {}})) {
    names[vm.pid] = vm.name;
  }
  return names;
}

/// "1*", "2-10": ranges, the one whose frames have no tags with a star.
ordered_json vlans_of(const PortVlans& vlans) {
  auto texts = ordered_json::array();
  for (const auto& range : vlans.ranges) {
    const bool native = range.first <= vlans.native && vlans.native <= range.last;
    texts.push_back(fmt::format("{}{}{}", range.first, range.first == range.last ? "" : fmt::format("-{}", range.last),
                                !native                     ? ""
                                : range.first == range.last ? "*"
                                                            : fmt::format(" ({}*)", vlans.native)));
  }
  return texts;
}

/// Those who may not read filters see the rest.
std::optional<PortGuard::State> guard_of(const Link& port) {
  try {
    return PortGuard::read(port.name, port.index);
  } catch (const HostError&) {
    return std::nullopt;
  }
}

ordered_json ports_of(Rtnetlink& netlink, const Link& bridge, const std::vector<Link>& links) {
  const auto holders = tap_holders();
  const auto names = names_of_vms();
  auto ports = ordered_json::array();
  for (const auto& link : links) {
    if (link.master != bridge.index) {
      continue;
    }
    ordered_json port{{"name", link.name}, {"up", (link.flags & IFF_UP) != 0}};
    if (const auto holder = holders.find(link.name); holder != holders.end()) {
      port["pid"] = holder->second;
      if (const auto name = names.find(holder->second); name != names.end() && !name->second.empty()) {
        port["vm"] = name->second;
      }
    }
    const auto vlans = read_bridge_port(netlink, link.index).vlans;
    port["vlans"] = vlans_of(vlans);
    port["counters"] = counters(link);
    if (const auto guard = guard_of(link)) {
      port["counters"]["foreign_senders"] = guard->foreign_senders;
      port["counters"]["foreign_vlans"] = guard->foreign_vlans;
    }
    ports.push_back(port);
  }
  return ports;
}

ordered_json fdb_of(const Link& bridge, const std::vector<Link>& links) {
  auto entries = ordered_json::array();
  for (const auto& it : read_fdb(bridge.index)) {
    const auto port = std::ranges::find(links, it.port, &Link::index);
    ordered_json entry{{"address", to_string(it.address)},
                       {"port", port == links.end() ? std::to_string(it.port) : port->name}};
    if (it.vlan != 0) {
      entry["vlan"] = it.vlan;
    }
    entry["own"] = it.origin == FdbEntry::Origin::Own;
    entries.push_back(entry);
  }
  return entries;
}

std::string words(const ordered_json& list) {
  return list.empty() ? "-" : fmt::format("{}", fmt::join(list.get<std::vector<std::string>>(), " "));
}

std::string text_of(const ordered_json& all) {
  auto text =
      fmt::format("{}: {}{}{}{}\naddresses: {}\n", all["name"].get<std::string>(), all["mode"].get<std::string>(),
                  all.contains("uplink") ? " by " + all["uplink"].get<std::string>() : "", all["dhcp"] ? ", DHCP" : "",
                  all["nat"] ? ", NAT" : "", words(all["addresses"]));
  text += fmt::format("\n{:<16} {:<20} {:<14} {:>10} {:>14} {:>10} {:>14} {:>8} {:>8}\n", "PORT", "VM", "VLANS",
                      "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "DROPPED", "FOREIGN");
  for (const auto& port : all["ports"]) {
    const auto& count = port["counters"];
    const auto pid = port.contains("pid") ? std::to_string(port["pid"].get<pid_t>()) : "-";
    text += fmt::format(
        "{:<16} {:<20} {:<14} {:>10} {:>14} {:>10} {:>14} {:>8} {:>8}\n", port["name"].get<std::string>(),
        port.contains("vm") ? fmt::format("{} ({})", pid, port["vm"].get<std::string>()) : pid, words(port["vlans"]),
        count["rx_packets"].get<std::uint64_t>(), count["rx_bytes"].get<std::uint64_t>(),
        count["tx_packets"].get<std::uint64_t>(), count["tx_bytes"].get<std::uint64_t>(),
        count["rx_dropped"].get<std::uint64_t>() + count["tx_dropped"].get<std::uint64_t>(),
        count.value("foreign_senders", std::uint64_t{0}) + count.value("foreign_vlans", std::uint64_t{0}));
  }
  text += fmt::format("\n{:<18} {:<16} VLAN", "ADDRESS", "BEHIND PORT");
  for (const auto& entry : all["fdb"]) {
    if (!entry["own"]) {
      text += fmt::format("\n{:<18} {:<16} {}", entry["address"].get<std::string>(), entry["port"].get<std::string>(),
                          entry.contains("vlan") ? std::to_string(entry["vlan"].get<int>()) : "-");
    }
  }
  return text;
}

}  // namespace

std::string list_switches(NetFormat format) {
  Rtnetlink netlink;
  const auto links = netlink.links();
  const auto addresses = host_addresses();
  auto all = ordered_json::array();
  auto table = fmt::format("{:<16} {:<11} {:<16} {:>5} ADDRESSES", "NAME", "MODE", "UPLINK", "PORTS");
  for (const auto& link : links) {
    if (link.kind == "bridge") {
      const auto& one = all.emplace_back(summary(link, links, addresses));
      table += fmt::format("\n{:<16} {:<11} {:<16} {:>5} {}", link.name, one["mode"].get<std::string>(),
                           one.value("uplink", "-"), one["ports"].size(), words(one["addresses"]));
    }
  }
  return format == NetFormat::Json ? all.dump(2) : table;
}

std::string show_switch(const std::string& name, NetFormat format) {
  Rtnetlink netlink;
  const auto links = netlink.links();
  const auto link = std::ranges::find(links, name, &Link::name);
  if (link == links.end() || link->kind != "bridge") {
    throw HostError{fmt::format("there is no switch {}; martlet net list tells which are there", name)};
  }
  auto all = summary(*link, links, host_addresses());
  all["mtu"] = link->mtu;
  all["address"] = to_string(link->address);
  all["counters"] = counters(*link);
  all["ports"] = ports_of(netlink, *link, links);
  all["fdb"] = fdb_of(*link, links);
  return format == NetFormat::Json ? all.dump(2) : text_of(all);
}

}  // namespace martlet
