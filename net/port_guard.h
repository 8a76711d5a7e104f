#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "net/mac.h"
#include "net/netlink.h"
#include "net/nft.h"
#include "net/port_policy.h"

namespace martlet {

/// Keeps a guest from sending what is not its own to send: by nftables, where the frames enter the host, before the
/// bridge sees them.
class PortGuard {
 public:
  struct Port {
    std::string name{};
    int index = 0;
    MacAddress guest{};  ///< the only sender
    PortVlans vlans{};   ///< a trunk's tags; other ports have none
  };
  using Life = NftBatch::Life;
  /// Throws HostError, and nothing is left.
  PortGuard(const Port& port, Life life);

  /// What the kernel says of a guard.
  struct State {
    MacAddress guest{};
    std::uint64_t foreign_senders = 0;  ///< frames dropped
    std::uint64_t foreign_vlans = 0;    ///< frames dropped
  };
  /// Nothing when the port has none. Throws HostError.
  [[nodiscard]] static std::optional<State> read(const std::string& port);
  /// Takes away a guard that was to be kept; one that is not there is no error. Throws HostError.
  static void remove(const std::string& port);

 private:
  NetlinkSocket socket_;  // the rules live as long
};

}  // namespace martlet
