#include "net/rtnetlink.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kAnswer = 32768;  // libmnl(7): what fits any answer
// Up and with carrier: IFF_LOWER_UP of <linux/if.h>, which does not go with <net/if.h>.
constexpr unsigned kLowerUp = 1U << 16U;

ifinfomsg& link_in(NetlinkMessage& message) { return message.extra<ifinfomsg>(); }

Link::Counters read_counters(const nlattr* attribute) {
  rtnl_link_stats64 stats{};
  std::memcpy(&stats, mnl_attr_get_payload(attribute),
              std::min<std::size_t>(sizeof stats, mnl_attr_get_payload_len(attribute)));
  return {.rx_packets = stats.rx_packets,
          .rx_bytes = stats.rx_bytes,
          .rx_dropped = stats.rx_dropped,
          .tx_packets = stats.tx_packets,
          .tx_bytes = stats.tx_bytes,
          .tx_dropped = stats.tx_dropped};
}

Link read_link(const nlmsghdr* message) {
  const auto* const info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  Link link{.index = info->ifi_index, .flags = info->ifi_flags};
  each_attribute(message, sizeof(ifinfomsg), [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case IFLA_IFNAME:
        link.name = is_string(attribute) ? mnl_attr_get_str(attribute) : "";
        break;
      case IFLA_MTU:
        link.mtu = is_u32(attribute) ? mnl_attr_get_u32(attribute) : 0;
        break;
      case IFLA_MASTER:
        link.master = is_u32(attribute) ? static_cast<int>(mnl_attr_get_u32(attribute)) : 0;
        break;
      case IFLA_ADDRESS:
        if (mnl_attr_get_payload_len(attribute) == link.address.size()) {
          std::memcpy(link.address.data(), mnl_attr_get_payload(attribute), link.address.size());
        }
        break;
      case IFLA_IFALIAS:
        link.alias = is_string(attribute) ? mnl_attr_get_str(attribute) : "";
        break;
      case IFLA_STATS64:
        link.counters = read_counters(attribute);
        break;
      case IFLA_LINKINFO:
        each_nested(attribute, [&](const nlattr* nested) {
          if (mnl_attr_get_type(nested) == IFLA_INFO_KIND && is_string(nested)) {
            link.kind = mnl_attr_get_str(nested);
          } else if (mnl_attr_get_type(nested) == IFLA_INFO_DATA && link.kind == "tun") {
            each_nested(nested, [&](const nlattr* data) {
              link.persistent |= mnl_attr_get_type(data) == IFLA_TUN_PERSIST && mnl_attr_get_u8(data) != 0;
            });
          }
        });
        break;
      default:
        break;
    }
  });
  return link;
}

}  // namespace

Rtnetlink::Rtnetlink() : socket_{NETLINK_ROUTE} {}

std::optional<Link> Rtnetlink::find(const std::string& name) {
  NetlinkMessage message{RTM_GETLINK};
  link_in(message);
  mnl_attr_put_strz(message.header(), IFLA_IFNAME, name.c_str());
  std::optional<Link> found;
  const int error = socket_.request(message, [&](const nlmsghdr* answer) {
    if (answer->nlmsg_type == RTM_NEWLINK) {
      found = read_link(answer);
    }
  });
  if (error != 0 && error != ENODEV) {
    fail_errno(error, "rtnetlink: cannot look up " + name);
  }
  return found;
}

std::vector<Link> Rtnetlink::links() {
  NetlinkMessage message{RTM_GETLINK};
  link_in(message);
  std::vector<Link> found;
  for (const auto& answer : dump(message)) {
    found.push_back(read_link(answer.header()));
  }
  return found;
}

int Rtnetlink::remove(int index) {
  NetlinkMessage message{RTM_DELLINK};
  link_in(message).ifi_index = index;
  return socket_.request(message);
}

int Rtnetlink::change(int index, const LinkChange& change) {
  NetlinkMessage message{RTM_NEWLINK};
  auto& link = link_in(message);
  link.ifi_index = index;
  if (change.state) {
    link.ifi_change = IFF_UP;
    link.ifi_flags = *change.state == LinkChange::State::Up ? unsigned{IFF_UP} : 0U;
  }
  if (change.address) {
    mnl_attr_put(message.header(), IFLA_ADDRESS, change.address->size(), change.address->data());
  }
  if (change.alias) {
    mnl_attr_put_str(message.header(), IFLA_IFALIAS, change.alias->c_str());
  }
  if (change.mtu) {
    mnl_attr_put_u32(message.header(), IFLA_MTU, *change.mtu);
  }
  if (change.master) {
    mnl_attr_put_u32(message.header(), IFLA_MASTER, static_cast<std::uint32_t>(*change.master));
  }
  return socket_.request(message);
}

int Rtnetlink::forbid_ipv6_address(int index) {
  NetlinkMessage message{RTM_NEWLINK};
  link_in(message).ifi_index = index;
  auto* const families = mnl_attr_nest_start(message.header(), IFLA_AF_SPEC);
  auto* const inet6 = mnl_attr_nest_start(message.header(), AF_INET6);
  mnl_attr_put_u8(message.header(), IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
  mnl_attr_nest_end(message.header(), inet6);
  mnl_attr_nest_end(message.header(), families);
  return socket_.request(message);
}

void CloseSocket::operator()(mnl_socket* socket) const noexcept { mnl_socket_close(socket); }

LinkWatch::LinkWatch(int index)
    : index_{index}, socket_{mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK)} {
  if (!socket_ || mnl_socket_bind(socket_.get(), RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0 || ask() != 0) {
    fail_errno(errno, "rtnetlink: cannot follow the state of network interfaces");
  }
}

int LinkWatch::fd() const noexcept { return mnl_socket_get_fd(socket_.get()); }

int LinkWatch::ask() noexcept {
  NetlinkMessage message{RTM_GETLINK};
  link_in(message).ifi_index = index_;
  return mnl_socket_sendto(socket_.get(), message.header(), message.header()->nlmsg_len) < 0 ? errno : 0;
}

bool LinkWatch::refresh() noexcept {
  const auto read = [](const nlmsghdr* message, void* self) {
    auto& watch = *static_cast<LinkWatch*>(self);
    if (message->nlmsg_type == RTM_NEWLINK && mnl_nlmsg_get_payload_len(message) >= sizeof(ifinfomsg)) {
      const auto* const info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
      if (info->ifi_index == watch.index_) {
        watch.up_ = (info->ifi_flags & kLowerUp) != 0;
      }
    }
    return MNL_CB_OK;
  };
  bool lost = false;
  for (;;) {
    std::array<char, kAnswer> buffer{};
    const auto got = mnl_socket_recvfrom(socket_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      [[maybe_unused]] const int others = mnl_cb_run(buffer.data(), static_cast<std::size_t>(got), 0, 0, read, this);
    } else if (got < 0 && errno == ENOBUFS) {
      lost = true;  // more than the socket holds, which has room for an answer when it is empty again
    } else if (got == 0 || errno != EINTR) {
      if (!std::exchange(lost, false) || ask() != 0) {
        return up_;
      }
    }
  }
}

}  // namespace martlet
