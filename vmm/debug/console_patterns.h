#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace re2 {
class RE2;
}

namespace martlet {

/// Regular expressions (RE2's: Perl's without what takes more than linear time) that lines of a console may match.
class ConsolePatterns {
 public:
  /// Throws HostError that names `option` for what is no regular expression.
  ConsolePatterns(const std::vector<std::string>& patterns, std::string_view option);
  ConsolePatterns(ConsolePatterns&&) noexcept;
  ConsolePatterns& operator=(ConsolePatterns&&) noexcept;
  ~ConsolePatterns();

  struct Pattern {
    std::string text{};
    std::optional<std::string> seen{};  ///< the first line that matched
  };

  /// Which of those that were not seen before are in `line`: they are marked. The first one's index, if any.
  std::optional<std::size_t> look_at(std::string_view line);

  [[nodiscard]] const std::vector<Pattern>& all() const noexcept { return patterns_; }
  [[nodiscard]] bool all_seen() const noexcept;

 private:
  std::vector<Pattern> patterns_;
  std::vector<std::unique_ptr<re2::RE2>> compiled_;
};

}  // namespace martlet
