#include "vmm/debug/console_patterns.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>

#include "vmm/base/error.h"

namespace martlet {

ConsolePatterns::ConsolePatterns(const std::vector<std::string>& patterns, std::string_view option) {
  RE2::Options options;
  options.set_log_errors(false);
  for (const auto& pattern : patterns) {
    const auto& compiled = compiled_.emplace_back(std::make_unique<RE2>(pattern, options));
    if (!compiled->ok()) {
      throw HostError{fmt::format("{} '{}' is no regular expression: {}; syntax: github.com/google/re2/wiki/Syntax",
                                  option, pattern, compiled->error())};
    }
    patterns_.push_back({.text = pattern});
  }
}

ConsolePatterns::ConsolePatterns(ConsolePatterns&&) noexcept = default;
ConsolePatterns& ConsolePatterns::operator=(ConsolePatterns&&) noexcept = default;
ConsolePatterns::~ConsolePatterns() = default;

std::optional<std::size_t> ConsolePatterns::look_at(std::string_view line) {
  std::optional<std::size_t> first;
  for (std::size_t i = 0; i < patterns_.size(); ++i) {
    auto& pattern = patterns_[i];
    if (!pattern.seen && RE2::PartialMatch({line.data(), line.size()}, *compiled_[i])) {
      pattern.seen = line;
      first = first.value_or(i);
    }
  }
  return first;
}

bool ConsolePatterns::all_seen() const noexcept {
  return std::ranges::all_of(patterns_, [](const Pattern& pattern) { return pattern.seen.has_value(); });
}

}  // namespace martlet
