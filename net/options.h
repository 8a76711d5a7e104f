#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/backend.h"
#include "net/mac.h"
#include "net/port_policy.h"

namespace martlet {

/// One network card as the user asked for it. Exactly one of `bridge`, `tap` and `fd` says where it leads.
struct NetOptions {
  std::string bridge{};     ///< a TAP is made, put on this bridge, and gone with the process
  std::string tap{};        ///< a TAP that is there
  std::optional<int> fd{};  ///< an inherited descriptor of a TAP

  /// The guest's address. Without one: random and locally administered, another each time the VM starts.
  std::optional<MacAddress> mac{};
  /// What the guest is told (VIRTIO_NET_F_MTU) to use at most. Without one: the backend's.
  std::optional<std::uint16_t> mtu{};
  std::uint16_t queues = 1;  ///< pairs; a guest uses one each vCPU at most
  Vhost vhost = Vhost::Auto;
  /// Bytes a second each way, and how many may go at once after a pause; 0: no limit. Martlet counts them
  /// itself, so a limit keeps vhost-net out.
  std::uint64_t rate = 0;
  std::uint64_t burst = 0;
  /// Where to write what the card carries (pcapng); empty: nowhere. Keeps vhost-net out as well.
  std::string pcap{};

  // What a bridge's port lets through.
  Spoof spoof = Spoof::Deny;
};

inline constexpr std::uint16_t kMaxNetPairs = 16;

/// "bridge=br0,mac=…,mtu=9000,queues=2,vhost=auto,rate=10M,burst=1M"; or tap=NAME, or fd=N in place of
/// bridge. Throws HostError.
[[nodiscard]] NetOptions parse_net(std::string_view text);

}  // namespace martlet
