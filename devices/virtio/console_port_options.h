#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "devices/serial_target.h"

namespace martlet::virtio {

/// "--port": a named way into the guest, there /dev/virtio-ports/NAME.
struct PortOptions {
  static constexpr std::size_t kLongestName = 63;

  std::string name{};
  SerialTarget target{.kind = SerialTarget::Kind::Null, .path = {}};
};

/// "name=agent,socket=PATH"; as places "stdio", "null", "pty", "file=PATH", "socket=PATH". HostError else.
[[nodiscard]] PortOptions parse_port_options(std::string_view text);

inline constexpr std::size_t kMostPorts = 30;  ///< each costs two queues

/// Throws HostError when a name is empty, too long, not a file's name or not unique, when there are too many
/// ports, or when two of them want stdin.
void check_ports(const std::vector<PortOptions>& ports);

}  // namespace martlet::virtio
