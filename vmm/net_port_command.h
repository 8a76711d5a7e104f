#pragma once

#include <string>

#include "vmm/net_command.h"

namespace martlet {

/// martlet net port: makes and deletes ports that stay.
void add_port_command(CLI::App& net, NetCommand& chosen);

/// A port's settings as JSON, as the kernel has them. Throws HostError.
[[nodiscard]] std::string describe_port(const std::string& name);

}  // namespace martlet
