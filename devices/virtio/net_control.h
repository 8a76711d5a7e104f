#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <variant>

#include "devices/virtio/chain.h"
#include "devices/virtio/net_wire.h"

namespace martlet::virtio {

/// One command of the control queue, §5.1.6.5.
struct SetMac {
  std::array<std::uint8_t, 6> mac{};
};
struct SetPairs {
  std::uint16_t pairs = 0;
};
struct SetGuestOffloads {
  std::uint64_t mask = 0;  ///< feature bits
};
/// Which frames the driver wants to see: it may get others too (§5.1.6.5.1), and does.
struct SetFilter {};
using NetCommand = std::variant<SetMac, SetPairs, SetGuestOffloads, SetFilter>;

/// Nothing when the command is none of those the `features` allow, is too short, or asks for what cannot be;
/// `pairs` is the most there are.
[[nodiscard]] std::optional<NetCommand> parse_command(ChainReader request, std::uint64_t features,
                                                      std::uint16_t pairs) noexcept;

}  // namespace martlet::virtio
