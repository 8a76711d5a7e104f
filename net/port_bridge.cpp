#include "net/port_bridge.h"

#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>

#include "vmm/base/error.h"

namespace martlet {
namespace {

/// A message about one port of a bridge.
struct PortMessage : NetlinkMessage {
  PortMessage(std::uint16_t type, int port) : NetlinkMessage{type} {
    auto& info = extra<ifinfomsg>();
    info.ifi_family = AF_BRIDGE;
    info.ifi_index = port;
  }
};

void put_vlan(nlmsghdr* message, int flags, std::uint16_t vlan) {
  const bridge_vlan_info info{.flags = static_cast<std::uint16_t>(flags), .vid = vlan};
  mnl_attr_put(message, IFLA_BRIDGE_VLAN_INFO, sizeof info, &info);
}

void put_range(nlmsghdr* message, const VlanRange& range) {
  if (range.first == range.last) {
    put_vlan(message, 0, range.first);
    return;
  }
  put_vlan(message, BRIDGE_VLAN_INFO_RANGE_BEGIN, range.first);
  put_vlan(message, BRIDGE_VLAN_INFO_RANGE_END, range.last);
}

}  // namespace

BridgeVlans read_bridge_vlans(Rtnetlink& netlink, int bridge) {
  BridgeVlans vlans;
  NetlinkMessage message{RTM_GETLINK};
  message.extra<ifinfomsg>().ifi_index = bridge;
  const auto read = [&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == IFLA_BR_VLAN_FILTERING) {
      vlans.filtering = mnl_attr_get_u8(attribute) != 0;
    } else if (mnl_attr_get_type(attribute) == IFLA_BR_VLAN_DEFAULT_PVID) {
      vlans.of_new_ports = mnl_attr_get_u16(attribute);
    }
  };
  const int error = netlink.socket().request(message, [&](const nlmsghdr* answer) {
    each_attribute(answer, sizeof(ifinfomsg), [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == IFLA_LINKINFO) {
        each_nested(attribute, [&](const nlattr* nested) {
          if (mnl_attr_get_type(nested) == IFLA_INFO_DATA) {
            each_nested(nested, read);
          }
        });
      }
    });
  });
  if (error != 0) {
    fail_errno(error, "rtnetlink: cannot look a bridge's VLANs up");
  }
  return vlans;
}

BridgePort read_bridge_port(Rtnetlink& netlink, int port) {
  BridgePort found;
  const auto vlan = [&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) != IFLA_BRIDGE_VLAN_INFO ||
        mnl_attr_get_payload_len(attribute) < sizeof(bridge_vlan_info)) {
      return;
    }
    const auto& info = *static_cast<const bridge_vlan_info*>(mnl_attr_get_payload(attribute));
    if ((info.flags & BRIDGE_VLAN_INFO_RANGE_END) != 0 && found.vlans.any()) {
      found.vlans.ranges.back().last = info.vid;
    } else {
      found.vlans.ranges.push_back({info.vid, info.vid});
    }
    if ((info.flags & BRIDGE_VLAN_INFO_PVID) != 0) {
      found.vlans.native = info.vid;
    }
  };
  const auto setting = [&](const nlattr* attribute) {
    if (mnl_attr_get_type(attribute) == IFLA_BRPORT_ISOLATED && mnl_attr_get_u8(attribute) != 0) {
      found.isolation = Isolation::On;
    }
  };
  NetlinkMessage message{RTM_GETLINK, NLM_F_DUMP};
  message.extra<ifinfomsg>().ifi_family = AF_BRIDGE;
  mnl_attr_put_u32(message.header(), IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN_COMPRESSED);
  const int error = netlink.socket().request(message, [&](const nlmsghdr* answer) {
    if (static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(answer))->ifi_index != port) {
      return;
    }
    each_attribute(answer, sizeof(ifinfomsg), [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == IFLA_AF_SPEC) {
        each_nested(attribute, vlan);
      } else if (mnl_attr_get_type(attribute) == IFLA_PROTINFO) {
        each_nested(attribute, setting);
      }
    });
  });
  if (error != 0) {
    fail_errno(error, "rtnetlink: cannot look a bridge's port up");
  }
  found.vlans.normalise();
  return found;
}

int set_vlans(Rtnetlink& netlink, int port, const PortVlans& vlans) {
  PortMessage others{RTM_DELLINK, port};
  auto* nest = mnl_attr_nest_start(others.header(), IFLA_AF_SPEC);
  put_range(others.header(), {1, 4094});
  mnl_attr_nest_end(others.header(), nest);
  if (const int error = netlink.socket().request(others); error != 0) {
    return error;
  }
  for (const auto& range : vlans.ranges) {
    PortMessage message{RTM_SETLINK, port};
    nest = mnl_attr_nest_start(message.header(), IFLA_AF_SPEC);
    put_range(message.header(), range);
    if (range.first <= vlans.native && vlans.native <= range.last) {
      put_vlan(message.header(), BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, vlans.native);
    }
    mnl_attr_nest_end(message.header(), nest);
    if (const int error = netlink.socket().request(message); error != 0) {
      return error;
    }
  }
  return 0;
}

int isolate(Rtnetlink& netlink, int port) {
  PortMessage message{RTM_SETLINK, port};
  auto* const nest = mnl_attr_nest_start(message.header(), IFLA_PROTINFO);
  mnl_attr_put_u8(message.header(), IFLA_BRPORT_ISOLATED, 1);
  mnl_attr_nest_end(message.header(), nest);
  return netlink.socket().request(message);
}

}  // namespace martlet
