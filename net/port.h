#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/mac.h"
#include "net/port_guard.h"
#include "net/port_policy.h"
#include "net/rtnetlink.h"

namespace martlet {

/// "a network card", "a TAP or TUN": for messages.
[[nodiscard]] std::string kind_of(const Link& link);

/// Throws HostError "`what``name`: …" when no interface can have that name.
void refuse_bad_name(const std::string& name, std::string_view what);

/// Whose settings these are, for messages: "-n bridge=br0" or "net port tap0".
struct PortRequest {
  std::string what{};
  std::string bridge{};
  MacAddress guest{};
  PortPolicy policy{};
};

/// The bridge, once it is known that it can do what is asked for: to be called before anything is made. Throws
/// HostError.
[[nodiscard]] Link find_bridge(Rtnetlink& netlink, const PortRequest& request);

struct PortLife {
  PortGuard::Life life = PortGuard::Life::Socket;
  int through = 0;  ///< an ifb interface on the way from the guest; 0: none
};
/// Makes a TAP that is down and on no bridge a port of `bridge`: MTU, filter, rate, VLANs, isolation, and then up.
/// Throws HostError: the TAP, and a filter that was to be kept, are to be deleted then. What is returned keeps the
/// filter alive.
[[nodiscard]] std::optional<PortGuard> plug_in(Rtnetlink& netlink, const Link& tap, const Link& bridge,
                                               const PortRequest& request, const PortLife& life);

/// What a port was made for.
struct PortMark {
  MacAddress guest{};
  std::string pcap{};  ///< where what passes is written to; empty: nowhere
};
/// Nothing of others' ports. Needs no privilege.
[[nodiscard]] std::optional<PortMark> read_port_mark(const Link& port);

/// What the kernel says of a port. Throws HostError when it is none.
[[nodiscard]] PortPolicy read_port(Rtnetlink& netlink, const Link& port);

}  // namespace martlet
