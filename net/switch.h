#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/address.h"
#include "net/rtnetlink.h"

namespace martlet {

/// Who is reached on a switch besides the guests.
enum class SwitchMode {
  Private,   ///< nobody
  Internal,  ///< the host
  External,  ///< the host and the network that its uplink leads to
};

/// A switch as the user asked for it: one of the kernel's bridges, and what Martlet puts around it.
struct SwitchOptions {
  std::string name{};
  SwitchMode mode = SwitchMode::Internal;
  std::string uplink{};                  ///< External: the network card that becomes a port
  std::vector<HostAddress> addresses{};  ///< Internal: the host's
  bool dhcp = false;                     ///< Internal: guests get addresses and names by dnsmasq
  bool nat = false;                      ///< Internal: guests reach what the host reaches, by its address
  bool persistent = false;               ///< made again by systemd-networkd when the host boots
  bool may_move_default_route = false;   ///< External: the uplink may be what the host depends on
};

/// What was done, in lines for people.
struct SwitchNews {
  std::vector<std::string> lines{};
};

/// Makes the switch. Of one that is there what others took is put back, or nothing is done, and that is said. Throws
/// HostError, and nothing is left.
[[nodiscard]] SwitchNews create_switch(const SwitchOptions& asked);

struct SwitchRemoval {
  std::string name{};
  bool force = false;  ///< even with VMs on it
};
/// Takes it away, and gives its uplink back what it had. A switch that is not there is none: that is said.
/// Throws HostError.
[[nodiscard]] SwitchNews delete_switch(const SwitchRemoval& removal);

/// How a switch of ours is known: by its interface's alias, "martlet external uplink=eth0". So all that is to be
/// known of it lives, and goes, with the interface.
struct SwitchMark {
  bool finished = false;  ///< not so while it is being made or deleted
  SwitchOptions options{};
  bool uplink_was_down = false;
};
[[nodiscard]] std::string to_alias(const SwitchMark& mark);
/// Nothing when it is no switch of ours.
[[nodiscard]] std::optional<SwitchMark> read_mark(const Link& link);
[[nodiscard]] std::string_view to_word(SwitchMode mode) noexcept;
[[nodiscard]] std::optional<SwitchMode> switch_mode(std::string_view word) noexcept;

}  // namespace martlet
