#pragma once
// A network of the test's own.

#include <string>
#include <vector>

namespace martlet::test {

/// tap0, or a bridge br0; the kernel answers there as 10.0.2.2.
inline constexpr const char* kTap =
    "ip tuntap add tap0 mode tap; ip addr add 10.0.2.2/24 dev tap0; ip link set tap0 up; ip link set lo up";
inline constexpr const char* kBridge =
    "ip link add br0 type bridge; ip addr add 10.0.2.2/24 dev br0; ip link set br0 up; ip link set lo up";

/// `command` in fresh network and mount namespaces after `setup`; its exit code. Interfaces that came since are
/// printed.
[[nodiscard]] std::vector<std::string> in_network(const std::string& setup, const std::vector<std::string>& command);

/// Why in_network() cannot be; empty when it can.
[[nodiscard]] std::string no_network();

}  // namespace martlet::test
