#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace martlet {

/// A port of the host that leads into a guest.
struct HostForward {
  enum class Protocol { Tcp, Udp };
  Protocol protocol = Protocol::Tcp;
  std::string address{};  ///< the host's; empty: all of them. IPv6's have colons
  std::uint16_t host = 0;
  std::uint16_t guest = 0;
};

[[nodiscard]] std::string to_string(const HostForward& forward);
/// What stands in the way of listening there: 0 or errno. EADDRINUSE when somebody does.
[[nodiscard]] int try_to_bind(const HostForward& forward) noexcept;
/// "tcp:8080:80", "udp:127.0.0.1:5353:53", "tcp:[::1]:8080:80". Throws HostError.
[[nodiscard]] HostForward parse_host_forward(std::string_view text);

}  // namespace martlet
