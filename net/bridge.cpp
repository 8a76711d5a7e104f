#include "net/bridge.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cerrno>

namespace martlet {
namespace {

enum class Vlans { Apart, Ignored };

int make(Rtnetlink& netlink, const std::string& name, Vlans vlans) {
  NetlinkMessage message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
  message.extra<ifinfomsg>();
  auto* const header = message.header();
  mnl_attr_put_strz(header, IFLA_IFNAME, name.c_str());
  auto* const info = mnl_attr_nest_start(header, IFLA_LINKINFO);
  mnl_attr_put_strz(header, IFLA_INFO_KIND, "bridge");
  auto* const data = mnl_attr_nest_start(header, IFLA_INFO_DATA);
  mnl_attr_put_u32(header, IFLA_BR_STP_STATE, 0);
  mnl_attr_put_u32(header, IFLA_BR_FORWARD_DELAY, 0);
  // Snooping without a querier forgets who listens, and IPv6 neighbours (multicast) with them.
  mnl_attr_put_u8(header, IFLA_BR_MCAST_SNOOPING, 0);
  if (vlans == Vlans::Apart) {
    mnl_attr_put_u8(header, IFLA_BR_VLAN_FILTERING, 1);
  }
  mnl_attr_nest_end(header, data);
  mnl_attr_nest_end(header, info);
  return netlink.socket().request(message);
}

}  // namespace

int make_bridge(Rtnetlink& netlink, const std::string& name) {
  const int error = make(netlink, name, Vlans::Apart);
  return error == EOPNOTSUPP ? make(netlink, name, Vlans::Ignored) : error;
}

}  // namespace martlet
