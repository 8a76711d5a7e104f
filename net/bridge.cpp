#include "net/bridge.h"

#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace martlet {
namespace {

enum class Vlans { Apart, Ignored };

int make(Rtnetlink& netlink, const std::string& name, Vlans vlans) {
  NetlinkMessage message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
  message.extra<ifinfomsg>();
  auto* const header = message.header();
  mnl_attr_put_strz(header, IFLA_IFNAME, name.c_str());
  const auto address = random_mac();  // or it would change with each port that comes and goes
  mnl_attr_put(header, IFLA_ADDRESS, address.size(), address.data());
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

std::vector<FdbEntry> read_fdb(int bridge) {
  NetlinkMessage message{RTM_GETNEIGH};
  message.extra<ndmsg>().ndm_family = AF_BRIDGE;
  std::vector<FdbEntry> all;
  for (const auto& answer : dump(message)) {
    const auto& header = answer.extra<ndmsg>();
    FdbEntry entry{
        .port = header.ndm_ifindex,
        .origin = (header.ndm_state & NUD_PERMANENT) != 0 ? FdbEntry::Origin::Own : FdbEntry::Origin::Learnt};
    bool of_bridge = false;
    answer.each<ndmsg>([&](const nlattr* attribute) {
      const auto length = mnl_attr_get_payload_len(attribute);
      switch (mnl_attr_get_type(attribute)) {
        case NDA_MASTER:
          of_bridge = is_u32(attribute) && static_cast<int>(mnl_attr_get_u32(attribute)) == bridge;
          break;
        case NDA_LLADDR:
          std::memcpy(entry.address.data(), mnl_attr_get_payload(attribute),
                      std::min<std::size_t>(length, entry.address.size()));
          break;
        case NDA_VLAN:
          entry.vlan = length == sizeof(std::uint16_t) ? mnl_attr_get_u16(attribute) : std::uint16_t{0};
          break;
        default:
          break;
      }
    });
    if (of_bridge) {
      all.push_back(entry);
    }
  }
  return all;
}

}  // namespace martlet
