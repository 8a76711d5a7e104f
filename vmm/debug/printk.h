#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace martlet {

/// A line of a console taken apart: what the kernel says begins with its time stamp and maybe its caller
/// (CONFIG_PRINTK_TIME, CONFIG_PRINTK_CALLER: "[   12.345678][  T123] "), and may come after a program's unfinished
/// output: "login: [   12.345678] BUG: …".
struct PrintkLine {
  std::string_view before{};             ///< the program's, all of it when there is no stamp
  std::string_view text{};               ///< the kernel's, without stamp and caller
  std::optional<std::uint64_t> stamp{};  ///< microseconds
  [[nodiscard]] bool begins() const noexcept { return stamp && before.empty(); }
};

[[nodiscard]] PrintkLine take_apart(std::string_view line) noexcept;

/// `line` without a caller that has no stamp ahead of it: CONFIG_PRINTK_CALLER alone.
[[nodiscard]] std::string_view without_caller(std::string_view line) noexcept;

}  // namespace martlet
