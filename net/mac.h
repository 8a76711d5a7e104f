#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace martlet {

using MacAddress = std::array<std::uint8_t, 6>;

/// "52:54:00:12:34:56". Throws HostError that begins with `what` when it is malformed, multicast or zero.
[[nodiscard]] MacAddress parse_mac(std::string_view text, std::string_view what);
[[nodiscard]] std::string to_string(const MacAddress& mac);

[[nodiscard]] constexpr bool is_multicast(const MacAddress& mac) noexcept { return (mac[0] & 1U) != 0; }

/// A locally administered unicast address that nobody else is likely to have.
[[nodiscard]] MacAddress random_mac();

}  // namespace martlet
