#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
    std::optional<MacAddress> guest{};  ///< the only sender; without one: any, and any tags
    PortVlans vlans{};                  ///< a trunk's tags; other ports have none
    int through = 0;                    ///< an ifb interface that the guest's frames pass on their way; 0: none
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
  /// Nothing when it may send as anybody. Throws HostError.
  [[nodiscard]] static std::optional<State> read(const std::string& port, int index);
  /// The indexes of ports of this name that have a guard: one, but for those whose interface is gone. Throws HostError.
  [[nodiscard]] static std::vector<int> indexes(const std::string& port);
  /// Takes away a guard that was to be kept; one that is not there is no error. Throws HostError.
  static void remove(const std::string& port, int index);

 private:
  NetlinkSocket socket_;  // the rules live as long
};

}  // namespace martlet
