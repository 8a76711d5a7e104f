#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/mac.h"
#include "vmm/base/options.h"

namespace martlet {

/// IEEE 802.1Q VLAN ids, 1 to 4094.
struct VlanRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
  friend bool operator==(const VlanRange&, const VlanRange&) = default;
};

/// The VLANs of a bridge's port. None: what the bridge gives every port, untagged.
struct PortVlans {
  std::vector<VlanRange> ranges{};  ///< ascending, with others between them
  std::uint16_t native = 0;         ///< that one of them whose frames have no tag on this side; 0: they all have

  [[nodiscard]] bool any() const noexcept { return !ranges.empty(); }
  /// One VLAN and no tags, so that the guest knows nothing of it.
  [[nodiscard]] bool is_access() const noexcept {
    return native != 0 && ranges.size() == 1 && ranges.front().first == ranges.front().last;
  }
  /// Puts what overlaps or touches together.
  void normalise();
  friend bool operator==(const PortVlans&, const PortVlans&) = default;
};

/// Frames with another sender than the guest's MAC address, or with a tag of a VLAN that is not the port's.
enum class Spoof { Deny, Allow };
/// Whether ports reach each other, or only those that are not isolated: the host, the uplink.
enum class Isolation { Off, On };

/// A port's settings: what can go with a VM to another host.
struct PortPolicy {
  std::optional<MacAddress> mac{};     ///< the guest's; without one: random, another each time the VM starts
  std::optional<std::uint16_t> mtu{};  ///< of the port, and what the guest is told; without one: the network's
  Spoof spoof = Spoof::Deny;
  PortVlans vlans{};
  Isolation isolation = Isolation::Off;
  std::uint64_t rate = 0;   ///< bytes a second each way; 0: no limit
  std::uint64_t burst = 0;  ///< bytes that may go at once after a pause; 0: a tenth of a second's worth
  /// Where to write what the card carries (pcapng), as it was given; empty: nowhere. Keeps vhost-net out as well.
  std::string pcap{};

  friend bool operator==(const PortPolicy&, const PortPolicy&) = default;
};

/// The keys mac, mtu, spoof, vlan, vlans, native, isolated, rate, burst and pcap; each wins over what `policy` has.
/// Throws HostError, which begins with `what`.
[[nodiscard]] PortPolicy take_policy(Options& options, const PortPolicy& policy, std::string_view what);

/// The same keys as one JSON object: numbers (sizes in bytes), strings, true or false. Throws HostError.
[[nodiscard]] PortPolicy parse_policy(const std::string& json, const std::string& what);
[[nodiscard]] PortPolicy read_policy_file(const std::string& path);
[[nodiscard]] std::string to_json(const PortPolicy& policy);

}  // namespace martlet
