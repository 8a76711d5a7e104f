#pragma once

#include <string>

#include "net/switch.h"

namespace martlet {

/// DHCP and DNS for guests by dnsmasq(8), of which each switch has one of its own. It is found again by its name in
/// the process table, "martlet-dnsmasq-br0", and its network namespace: no file can tell a lie about it.

/// Throws HostError, naming the package, when dnsmasq is not installed.
void refuse_without_dnsmasq(const std::string& name);
/// Throws HostError with dnsmasq's own words when it does not start.
void start_dnsmasq(const SwitchOptions& options);
[[nodiscard]] bool dnsmasq_runs(const std::string& name);
/// Returns when it has ended. None is no error.
void stop_dnsmasq(const std::string& name);

}  // namespace martlet
