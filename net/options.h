#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/backend.h"
#include "net/host_forward.h"
#include "net/macvtap.h"
#include "net/port_policy.h"

namespace martlet {

/// One network card as the user asked for it. Exactly one of `bridge`, `tap`, `macvtap`, `fd`, `user` and
/// `vhost_user` says where it leads.
struct NetOptions {
  std::string bridge{};   ///< a TAP is made, put on this bridge, and gone with the process
  std::string tap{};      ///< a TAP that is there
  std::string macvtap{};  ///< one is made on this interface of the host's
  MacvtapMode macvtap_mode = MacvtapMode::Bridge;
  std::optional<int> fd{};              ///< an inherited descriptor of a TAP
  bool user = false;                    ///< what the host's user may do, by passt
  std::vector<HostForward> forwards{};  ///< with `user`
  std::string vhost_user{};             ///< the socket of the process that serves the rings (OVS, DPDK)

  /// Of these only a bridge's port has spoof, vlans and isolation: on others they are as nobody has set them.
  PortPolicy port{};
  std::uint16_t queues = 1;  ///< pairs; a guest uses one each vCPU at most
  Vhost vhost = Vhost::Auto;
};

inline constexpr std::uint16_t kMaxNetPairs = 16;

/// "bridge=br0,mac=…,mtu=9000,queues=2,vhost=auto,rate=10M,burst=1M,vlan=10"; or tap=NAME,
/// "macvtap=eth0,mode=vepa", fd=N or "user,hostfwd=tcp:8080:80" in place of bridge. Reads the file of policy=FILE,
/// whose settings others on the line override. Throws HostError.
[[nodiscard]] NetOptions parse_net(std::string_view text);

}  // namespace martlet
