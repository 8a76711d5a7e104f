#pragma once

#include <string>
#include <vector>

#include "net/address.h"
#include "net/switch.h"

namespace martlet {

/// A switch as systemd-networkd(8) makes it again when the host boots.
struct NetworkdSwitch {
  SwitchMark mark{};
  MacAddress address{};
  bool tells_vlans_apart =
      false;  ///< as far as this kernel's bridges can; networkd sets nothing where it cannot set all
  /// External: what the host has there for good, and the gateways of its default routes. Without: by DHCP.
  std::vector<HostAddress> addresses{};
  std::vector<std::string> gateways{};
  bool leases_ipv4 = false;  ///< it has an IPv4 address by DHCP
};

struct NetworkdFile {
  std::string path{};
  std::string text{};
};
[[nodiscard]] std::vector<NetworkdFile> networkd_files(const NetworkdSwitch& it);

/// Throws HostError: some may be written then.
void write_networkd_files(const NetworkdSwitch& it);
/// Those of this switch that are there: how many. Throws HostError.
int remove_networkd_files(const std::string& name);

}  // namespace martlet
