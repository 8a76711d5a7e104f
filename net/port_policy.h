#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/mac.h"

namespace martlet {

/// IEEE 802.1Q VLAN ids, 1 to 4094.
struct VlanRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
  friend bool operator==(const VlanRange&, const VlanRange&) = default;
};

/// The VLANs of a bridge's port. None: what the bridge gives every port, untagged.
struct PortVlans {
  std::vector<VlanRange> ranges{};  ///< ascending, disjoint
  std::uint16_t native = 0;         ///< that one of them whose frames have no tag on this side; 0: they all have

  [[nodiscard]] bool any() const noexcept { return !ranges.empty(); }
  /// One VLAN and no tags, so that the guest knows nothing of it.
  [[nodiscard]] bool is_access() const noexcept {
    return native != 0 && ranges.size() == 1 && ranges.front().first == ranges.front().last;
  }
  friend bool operator==(const PortVlans&, const PortVlans&) = default;
};

/// Frames with another sender than the guest's MAC address, or with a tag of a VLAN that is not the port's.
enum class Spoof { Deny, Allow };
/// Whether ports reach each other, or only those that are not isolated: the host, the uplink.
enum class Isolation { Off, On };

}  // namespace martlet
