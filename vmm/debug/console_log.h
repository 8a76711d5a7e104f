#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace martlet {

/// What a guest's consoles said, as it came: the beginning and the end of it, up to some MiB.
class ConsoleLog {
 public:
  void add(std::span<const std::byte> output);
  /// All of it, or its beginning, a line that says how much is missing, and its end.
  [[nodiscard]] std::string text() const;
  /// Its last `lines`, without carriage returns and without the last one's line feed.
  [[nodiscard]] std::string last(std::size_t lines) const;

 private:
  static constexpr std::size_t kBeginning = std::size_t{1} << 20U;
  static constexpr std::size_t kEnd = std::size_t{3} << 20U;

  std::string beginning_;
  std::string end_;  // a ring once it is full
  std::size_t next_ = 0;
  std::size_t lost_ = 0;
};

}  // namespace martlet
