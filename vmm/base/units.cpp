#include "vmm/base/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "vmm/base/error.h"

namespace martlet {
namespace {

struct Unit {
  std::string_view suffix;
  std::uint64_t factor;
};

/// A whole number and one of `units`; nothing when it is neither or does not fit 64 bits.
std::optional<std::uint64_t> parse_with_unit(std::string_view text, std::span<const Unit> units) {
  std::uint64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || rest == text.data()) {
    return std::nullopt;
  }
  const std::string_view suffix = text.substr(static_cast<std::size_t>(rest - text.data()));
  for (const auto& unit : units) {
    if (unit.suffix == suffix) {
      if (number > std::numeric_limits<std::uint64_t>::max() / unit.factor) {
        return std::nullopt;
      }
      return number * unit.factor;
    }
  }
  return std::nullopt;
}

}  // namespace

std::uint64_t parse_bytes(std::string_view text, std::string_view what) {
  constexpr std::array kUnits = {Unit{"", 1},
                                 Unit{"K", 1ULL << 10U},
                                 Unit{"M", 1ULL << 20U},
                                 Unit{"G", 1ULL << 30U},
                                 Unit{"T", 1ULL << 40U},
                                 Unit{"k", 1ULL << 10U},
                                 Unit{"m", 1ULL << 20U},
                                 Unit{"g", 1ULL << 30U},
                                 Unit{"t", 1ULL << 40U}};
  if (const auto size = parse_with_unit(text, kUnits)) {
    return *size;
  }
  throw HostError{fmt::format("{}: '{}' is not a size; write it like 512M or 2G", what, text)};
}

std::uint64_t parse_size(std::string_view text, std::string_view what) {
  constexpr std::array kMebibytes = {Unit{"", 1ULL << 20U}};
  if (const auto bare = parse_with_unit(text, kMebibytes)) {
    return *bare;
  }
  return parse_bytes(text, what);
}

std::chrono::milliseconds parse_duration(std::string_view text, std::string_view what) {
  constexpr std::array kUnits = {Unit{"", 1000}, Unit{"ms", 1}, Unit{"s", 1000}, Unit{"m", 60'000},
                                 Unit{"h", 3'600'000}};
  constexpr std::uint64_t kTooLong = 1ULL << 40U;  // 35 years, and safe in nanoseconds
  const auto duration = parse_with_unit(text, kUnits);
  if (duration && *duration > 0 && *duration < kTooLong) {
    return std::chrono::milliseconds{*duration};
  }
  throw HostError{fmt::format("{}: '{}' is not a duration; write it like 90s, 500ms or 5m", what, text)};
}

std::string format_size(std::uint64_t bytes) {
  constexpr std::uint64_t kMiB = 1ULL << 20U;
  if (bytes >= 1024 * kMiB) {
    return fmt::format("{:.4g} GiB", static_cast<double>(bytes) / static_cast<double>(1024 * kMiB));
  }
  return bytes % kMiB == 0 || bytes > 16 * kMiB ? fmt::format("{} MiB", bytes / kMiB) : fmt::format("{} bytes", bytes);
}

}  // namespace martlet
