#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "devices/serial_target.h"

namespace martlet::virtio {

/// "--port": a named way into the guest, there /dev/virtio-ports/NAME.
struct PortOptions {
  std::string name{};
  SerialTarget target{.kind = SerialTarget::Kind::Null, .path = {}};
};

struct ConsoleOptions {
  static constexpr std::size_t kMostPorts = 30;  ///< named ones; each costs two queues
  static constexpr std::size_t kLongestName = 63;

  SerialTarget target{};             ///< of port 0, the guest's hvc0
  std::vector<PortOptions> ports{};  ///< ports 1, 2, …
};

/// "name=agent,socket=PATH"; as places "stdio", "null", "pty", "file=PATH", "socket=PATH". HostError else.
[[nodiscard]] PortOptions parse_port_options(std::string_view text);

/// Throws HostError when a name is empty, too long, not a file's name or not unique, when there are too many
/// ports, or when two of them want stdin.
void check_console(const ConsoleOptions& options);

}  // namespace martlet::virtio
