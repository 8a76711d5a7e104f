#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace martlet {

/// A host's IP address and the length of its network's prefix: "10.0.0.1/24", "fd00::1/64".
struct HostAddress {
  int family = 0;  ///< AF_INET or AF_INET6
  std::array<std::uint8_t, 16> bytes{};
  std::uint8_t prefix = 0;

  [[nodiscard]] std::size_t size() const noexcept;  ///< 4 or 16
  [[nodiscard]] std::span<const std::uint8_t> address() const noexcept { return {bytes.data(), size()}; }
  /// Its network: the bits behind the prefix are 0.
  [[nodiscard]] HostAddress network() const noexcept;
  /// The network's last address: the bits behind the prefix are 1. In IPv4 that is to all.
  [[nodiscard]] HostAddress last() const noexcept;

  bool operator==(const HostAddress&) const = default;
};

/// Throws HostError that begins with `what` when it is no address of a host in a network: 10.0.0.0/24 is the network.
[[nodiscard]] HostAddress parse_host_address(std::string_view text, std::string_view what);

[[nodiscard]] std::string to_string(const HostAddress& address);  ///< with "/prefix"
[[nodiscard]] std::string text_of_ip(std::span<const std::uint8_t> address);

}  // namespace martlet
