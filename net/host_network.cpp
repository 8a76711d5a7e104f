#include "net/host_network.h"

#include <fmt/format.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <ranges>
#include <string_view>
#include <system_error>

#include "vmm/base/error.h"

namespace martlet {
namespace {

using Answers = std::vector<NetlinkAnswer>;

constexpr std::int32_t kTicks = 100;  // USER_HZ, the unit of rta_expires

Answers dump_addresses() {
  NetlinkMessage message{RTM_GETADDR};
  message.extra<ifaddrmsg>();
  return dump(message);
}

Answers dump_routes() {
  Answers routes;
  for (const auto family : {AF_INET, AF_INET6}) {
    NetlinkMessage message{RTM_GETROUTE};
    message.extra<rtmsg>().rtm_family = static_cast<unsigned char>(family);
    std::ranges::move(dump(message), std::back_inserter(routes));
  }
  return routes;
}

void put(nlmsghdr* message, const nlattr* attribute) {
  mnl_attr_put(message, attribute->nla_type, mnl_attr_get_payload_len(attribute), mnl_attr_get_payload(attribute));
}

template <class Header>
const nlattr* find(const NetlinkAnswer& answer, int type) {
  const nlattr* found = nullptr;
  answer.each<Header>([&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == type) {
      found = attribute;
    }
  });
  return found;
}

void expect_done(int error, int harmless, const Link& to, std::string_view what) {
  if (error != 0 && error != harmless) {
    throw HostError{fmt::format("{}: cannot {}: {}", to.name, what, std::generic_category().message(error))};
  }
}

// --- Addresses

std::uint32_t flags_of(const NetlinkAnswer& address) {
  const auto* const flags = find<ifaddrmsg>(address, IFA_FLAGS);
  return flags != nullptr && is_u32(flags) ? mnl_attr_get_u32(flags) : address.extra<ifaddrmsg>().ifa_flags;
}

bool is_ipv6(const NetlinkAnswer& address) { return address.extra<ifaddrmsg>().ifa_family == AF_INET6; }

/// Those of `link`, in the order in which they are to be added so that they come to stand as they do: the kernel puts
/// a new IPv6 address before its peers.
Answers addresses_of(const Link& link) {
  auto all = dump_addresses();
  std::erase_if(all, [&](const NetlinkAnswer& it) {
    const bool temporary = is_ipv6(it) && (flags_of(it) & IFA_F_TEMPORARY) != 0;
    return static_cast<int>(it.extra<ifaddrmsg>().ifa_index) != link.index || temporary;
  });
  const auto six = std::ranges::stable_partition(all, [](const NetlinkAnswer& it) { return !is_ipv6(it); });
  std::ranges::reverse(six);
  return all;
}

int request_address(Rtnetlink& netlink, NetlinkMessage& message, const NetlinkAnswer& address, const Link& from, int on,
                    std::uint32_t flags) {
  auto& header = message.extra<ifaddrmsg>();
  header = address.extra<ifaddrmsg>();
  header.ifa_index = static_cast<std::uint32_t>(on);
  address.each<ifaddrmsg>([&](const nlattr* attribute) {
    const auto type = mnl_attr_get_type(attribute);
    // Without a label it gets its interface's name.
    const bool plain_label = type == IFA_LABEL && is_string(attribute) && mnl_attr_get_str(attribute) == from.name;
    if (type != IFA_FLAGS && !plain_label) {
      put(message.header(), attribute);
    }
  });
  mnl_attr_put_u32(message.header(), IFA_FLAGS, flags);
  return netlink.socket().request(message);
}

void add_address(Rtnetlink& netlink, const NetlinkAnswer& address, const Link& from, const Link& to) {
  const auto flags = flags_of(address);
  const auto more = is_ipv6(address) ? unsigned{IFA_F_NODAD} : 0U;  // it was tried: this host itself has it
  NetlinkMessage message{RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL};
  expect_done(request_address(netlink, message, address, from, to.index, flags | more), EEXIST, to, "add an address");
  if ((flags & more) != more) {
    NetlinkMessage again{RTM_NEWADDR, NLM_F_REPLACE};  // and stand there as if that had not been said
    expect_done(request_address(netlink, again, address, from, to.index, flags), 0, to, "set an address's flags");
  }
}

void delete_address(Rtnetlink& netlink, const NetlinkAnswer& address, const Link& from) {
  NetlinkMessage message{RTM_DELADDR};
  const int error = request_address(netlink, message, address, from, from.index, flags_of(address));
  expect_done(error, EADDRNOTAVAIL, from, "delete an address");
}

// --- Routes

template <class Use>
void each_hop(const nlattr* multipath, Use use) {
  const auto* const bytes = static_cast<const char*>(mnl_attr_get_payload(multipath));
  rtnexthop hop{};
  for (std::size_t at = 0; at + sizeof hop <= mnl_attr_get_payload_len(multipath);) {
    std::memcpy(&hop, bytes + at, sizeof hop);
    if (hop.rtnh_len < sizeof hop) {
      return;
    }
    use(hop, std::string_view{bytes + at, hop.rtnh_len});
    at += RTNH_ALIGN(hop.rtnh_len);
  }
}

bool leads_out_of(const NetlinkAnswer& route, int index) {
  bool leads = false;
  route.each<rtmsg>([&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == RTA_OIF) {
      leads |= is_u32(attribute) && static_cast<int>(mnl_attr_get_u32(attribute)) == index;
    } else if (mnl_attr_get_type(attribute) == RTA_MULTIPATH) {
      each_hop(attribute, [&](const rtnexthop& hop, std::string_view) { leads |= hop.rtnh_ifindex == index; });
    }
  });
  return leads;
}

bool has_gateway(const NetlinkAnswer& route) {
  return find<rtmsg>(route, RTA_GATEWAY) != nullptr || find<rtmsg>(route, RTA_VIA) != nullptr ||
         find<rtmsg>(route, RTA_MULTIPATH) != nullptr;
}

/// Those that lead out of `index`, but for what the kernel makes of addresses by itself (table local). First those
/// by which the others' gateways are reached.
Answers routes_of(int index) {
  auto all = dump_routes();
  std::erase_if(all, [&](const NetlinkAnswer& route) {
    const auto& header = route.extra<rtmsg>();
    return header.rtm_table == RT_TABLE_LOCAL || (header.rtm_flags & RTM_F_CLONED) != 0 || !leads_out_of(route, index);
  });
  std::ranges::stable_partition(all, [](const NetlinkAnswer& it) { return !has_gateway(it); });
  return all;
}

/// The hops with `from` replaced by `to`. IPv6 keeps each hop as a route: only those that change are of interest.
void put_hops(nlmsghdr* message, const nlattr* multipath, unsigned char family, int from, int to) {
  auto* const nest = mnl_attr_nest_start(message, RTA_MULTIPATH);
  each_hop(multipath, [&](rtnexthop hop, std::string_view bytes) {
    if (hop.rtnh_ifindex != from && family == AF_INET6) {
      return;
    }
    hop.rtnh_ifindex = hop.rtnh_ifindex == from ? to : hop.rtnh_ifindex;
    hop.rtnh_flags &= RTNH_F_ONLINK;
    auto* const place = static_cast<char*>(mnl_nlmsg_put_extra_header(message, bytes.size()));
    std::memcpy(place, bytes.data(), bytes.size());
    std::memcpy(place, &hop, sizeof hop);
  });
  mnl_attr_nest_end(message, nest);
}

int request_route(Rtnetlink& netlink, NetlinkMessage& message, const NetlinkAnswer& route, int from, int to) {
  auto& header = message.extra<rtmsg>();
  header = route.extra<rtmsg>();
  header.rtm_flags &= RTNH_F_ONLINK;  // the others are states
  route.each<rtmsg>([&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case RTA_OIF:
        mnl_attr_put_u32(message.header(), RTA_OIF, static_cast<std::uint32_t>(to));
        break;
      case RTA_MULTIPATH:
        put_hops(message.header(), attribute, header.rtm_family, from, to);
        break;
      case RTA_CACHEINFO: {
        rta_cacheinfo info{};
        std::memcpy(&info, mnl_attr_get_payload(attribute),
                    std::min<std::size_t>(sizeof info, mnl_attr_get_payload_len(attribute)));
        if (info.rta_expires > 0) {
          const auto seconds = (info.rta_expires - 1) / kTicks + 1;
          mnl_attr_put_u32(message.header(), RTA_EXPIRES, static_cast<std::uint32_t>(seconds));
        }
        break;
      }
      default:
        put(message.header(), attribute);
    }
  });
  return netlink.socket().request(message);
}

}  // namespace

std::vector<InterfaceAddress> host_addresses() {
  std::vector<InterfaceAddress> found;
  for (const auto& answer : dump_addresses()) {
    const auto& header = answer.extra<ifaddrmsg>();
    // IFA_ADDRESS is the peer's where there is one.
    const auto* const local = find<ifaddrmsg>(answer, IFA_LOCAL);
    const auto* const address = local != nullptr ? local : find<ifaddrmsg>(answer, IFA_ADDRESS);
    InterfaceAddress entry{.index = static_cast<int>(header.ifa_index),
                           .address = {.family = header.ifa_family, .prefix = header.ifa_prefixlen},
                           .is_link_local = header.ifa_family == AF_INET6 && header.ifa_scope == RT_SCOPE_LINK,
                           .is_lasting = (flags_of(answer) & IFA_F_PERMANENT) != 0};
    if (address != nullptr && mnl_attr_get_payload_len(address) == entry.address.size()) {
      std::memcpy(entry.address.bytes.data(), mnl_attr_get_payload(address), entry.address.size());
      found.push_back(entry);
    }
  }
  return found;
}

int add_host_address(Rtnetlink& netlink, int index, const HostAddress& address) {
  NetlinkMessage message{RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL};
  auto& header = message.extra<ifaddrmsg>();
  header.ifa_family = static_cast<unsigned char>(address.family);
  header.ifa_prefixlen = address.prefix;
  header.ifa_index = static_cast<std::uint32_t>(index);
  const auto bytes = address.address();
  mnl_attr_put(message.header(), IFA_LOCAL, bytes.size(), bytes.data());
  mnl_attr_put(message.header(), IFA_ADDRESS, bytes.size(), bytes.data());
  if (address.family == AF_INET) {
    const auto last = address.last();
    mnl_attr_put(message.header(), IFA_BROADCAST, bytes.size(), last.bytes.data());
  } else {
    mnl_attr_put_u32(message.header(), IFA_FLAGS, IFA_F_NODAD);  // a switch without guests has nobody to ask
  }
  return netlink.socket().request(message);
}

bool carries_default_route(int index) {
  return std::ranges::any_of(routes_of(index), [](const NetlinkAnswer& route) {
    return route.extra<rtmsg>().rtm_dst_len == 0 && route.extra<rtmsg>().rtm_type == RTN_UNICAST;
  });
}

std::vector<std::string> default_gateways(int index) {
  std::vector<std::string> found;
  for (const auto& route : routes_of(index)) {
    const auto* const gateway = find<rtmsg>(route, RTA_GATEWAY);
    if (route.extra<rtmsg>().rtm_dst_len == 0 && gateway != nullptr) {
      found.push_back(text_of_ip(
          {static_cast<const std::uint8_t*>(mnl_attr_get_payload(gateway)), mnl_attr_get_payload_len(gateway)}));
    }
  }
  return found;
}

void move_host_network(Rtnetlink& netlink, const Link& from, const Link& to) {
  const auto addresses = addresses_of(from);
  const auto routes = (to.flags & IFF_UP) != 0 ? routes_of(from.index) : Answers{};
  if (std::ranges::any_of(routes, [](const NetlinkAnswer& it) { return find<rtmsg>(it, RTA_NH_ID) != nullptr; })) {
    throw HostError{fmt::format("{}: has routes by nexthop objects (ip nexthop), which cannot be moved", from.name)};
  }
  for (const auto& address : addresses) {
    add_address(netlink, address, from, to);
  }
  for (const auto& route : routes) {
    NetlinkMessage message{RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND};
    expect_done(request_route(netlink, message, route, from.index, to.index), EEXIST, to, "add a route");
  }
  // Those by gateways go first, and secondary addresses before their primary ones.
  for (const auto& route : std::views::reverse(routes)) {
    NetlinkMessage message{RTM_DELROUTE};
    expect_done(request_route(netlink, message, route, from.index, from.index), ESRCH, from, "delete a route");
  }
  for (const auto& address : std::views::reverse(addresses)) {
    delete_address(netlink, address, from);
  }
}

}  // namespace martlet
