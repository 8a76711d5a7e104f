#pragma once

#include <vector>

#include "net/address.h"
#include "net/rtnetlink.h"

namespace martlet {

/// An address of the host's and the interface that has it.
struct InterfaceAddress {
  int index = 0;
  HostAddress address{};
  bool is_link_local = false;  ///< IPv6's, which each interface has by itself
  bool is_lasting = true;      ///< not lent by DHCP or a router
};

/// All of them. Throws HostError.
[[nodiscard]] std::vector<InterfaceAddress> host_addresses();

/// 0 or errno.
[[nodiscard]] int add_host_address(Rtnetlink& netlink, int index, const HostAddress& address);

/// Whether the interface is the way to everywhere that no other route knows. Throws HostError.
[[nodiscard]] bool carries_default_route(int index);

/// The gateways of its default routes. Throws HostError.
[[nodiscard]] std::vector<std::string> default_gateways(int index);

/// Moves the host's addresses and routes from one interface to another, each just as it is: it is added there before
/// it goes here, so that the host can be reached at any moment. What is there already is left; so moving back heals a
/// move that broke off. An interface that is down gets no routes, as it can have none. Temporary IPv6 addresses (RFC
/// 8981) go: others come. Throws HostError.
void move_host_network(Rtnetlink& netlink, const Link& from, const Link& to);

}  // namespace martlet
