#pragma once

#include <cstdint>

#include "net/port_policy.h"
#include "net/rtnetlink.h"

namespace martlet {

/// Whether a bridge tells VLANs apart, and which one it gives ports that say nothing.
struct BridgeVlans {
  bool filtering = false;
  std::uint16_t of_new_ports = 0;
};
[[nodiscard]] BridgeVlans read_bridge_vlans(Rtnetlink& netlink, int bridge);

/// What a bridge knows of one of its ports.
struct BridgePort {
  PortVlans vlans{};
  Isolation isolation = Isolation::Off;
};
[[nodiscard]] BridgePort read_bridge_port(Rtnetlink& netlink, int port);

/// In place of those that the port has. 0 or errno.
[[nodiscard]] int set_vlans(Rtnetlink& netlink, int port, const PortVlans& vlans);
/// 0 or errno.
[[nodiscard]] int isolate(Rtnetlink& netlink, int port);

}  // namespace martlet
