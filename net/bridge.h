#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/rtnetlink.h"

namespace martlet {

/// Makes a bridge, down, that forwards at once (no spanning tree, no forward delay), floods multicast as a cable
/// does, and tells VLANs apart where the kernel can. 0 or errno.
[[nodiscard]] int make_bridge(Rtnetlink& netlink, const std::string& name);

/// Behind which port a bridge believes an Ethernet address to be.
struct FdbEntry {
  MacAddress address{};
  int port = 0;            ///< its index
  std::uint16_t vlan = 0;  ///< 0: in any
  enum class Origin { Learnt, Own };
  Origin origin = Origin::Learnt;  ///< Own: the host's or that of the port itself
};
/// Throws HostError.
[[nodiscard]] std::vector<FdbEntry> read_fdb(int bridge);

}  // namespace martlet
