#pragma once

#include <string>

#include "net/switch.h"

namespace martlet {

/// Holds what a switch's mode promises, whatever else the host routes: nothing reaches the host from a private switch;
/// the host forwards nothing between an internal one and the world, or with NAT what guests ask for and the answers.
/// A table of nftables of the switch's own. Throws HostError, and nothing is left.
void add_switch_filter(const SwitchOptions& options);

[[nodiscard]] bool has_switch_filter(const std::string& name);
/// One that is not there is no error. Throws HostError.
void remove_switch_filter(const std::string& name);

}  // namespace martlet
