#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace martlet {

/// "64K", "512M", "2G", "1T"; a bare number is MiB, as kvmtool and QEMU have it. Bytes.
/// Throws HostError that names `what`.
[[nodiscard]] std::uint64_t parse_size(std::string_view text, std::string_view what);

/// The same, but a bare number is bytes: for small sizes and rates, where a unit left out is no MiB.
[[nodiscard]] std::uint64_t parse_bytes(std::string_view text, std::string_view what);

/// "500ms", "60s", "5m", "1h"; a bare number is seconds. Throws HostError that names `what`.
[[nodiscard]] std::chrono::milliseconds parse_duration(std::string_view text, std::string_view what);

/// "512 MiB", "1.5 GiB": for people.
[[nodiscard]] std::string format_size(std::uint64_t bytes);

}  // namespace martlet
