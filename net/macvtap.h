#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/mac.h"
#include "net/rtnetlink.h"
#include "vmm/base/fd.h"

namespace martlet {

/// Who hears whom among the macvtaps of one interface (IFLA_MACVLAN_MODE, IEEE 802.1Qbg).
enum class MacvtapMode : std::uint32_t {
  Private = 1,      ///< nobody another
  Vepa = 2,         ///< by way of the switch outside, which sends their frames back (hairpin)
  Bridge = 4,       ///< at once
  Passthrough = 8,  ///< there is but one, and the interface takes its address
};

struct MacvtapOptions {
  std::string below{};  ///< the host's interface
  MacvtapMode mode = MacvtapMode::Bridge;
  MacAddress guest{};
  std::uint16_t pairs = 1;
};

/// An Ethernet interface of the guest's own on top of one of the host's. It lives in a network namespace that nobody
/// but this process holds, so that it goes with the process however that ends, and the host's own network stack
/// does not see it.
struct Macvtap {
  Link below{};
  std::vector<Fd> queues{};  ///< as those of a TAP with IFF_VNET_HDR
  Fd home{};                 ///< the namespace
};

/// "-n macvtap=NAME": its interface. Throws HostError when there is none that can carry a macvtap.
[[nodiscard]] Link find_below(const std::string& name);

/// Throws HostError, and nothing is left.
[[nodiscard]] Macvtap make_macvtap(const MacvtapOptions& options);

}  // namespace martlet
