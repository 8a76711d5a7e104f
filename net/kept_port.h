#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "net/mac.h"
#include "net/options.h"
#include "net/port_policy.h"
#include "net/rtnetlink.h"

namespace martlet {

/// A TAP on a bridge that stays until it is deleted, for a user who may make none: `-n tap=NAME`.
struct KeptPort {
  std::string name{};
  std::string bridge{};
  uid_t owner = 0;
  PortPolicy policy{};
};

/// Throws HostError, and nothing is left. Returns the guest's address, which is the policy's if it has one.
MacAddress make_kept_port(const KeptPort& port);

/// With all that belongs to it, also what is left of one whose TAP others have deleted. Throws HostError.
void delete_kept_port(const std::string& name);

/// The address of a guest with these options: theirs, its port's, or a random one (with macvtap's passthru, the
/// interface's). Throws HostError when the port is another guest's.
[[nodiscard]] MacAddress guest_address(const NetOptions& options);

}  // namespace martlet
