#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace martlet {

/// A console's output as lines of text, as a reader sees them: no escape sequences (ECMA-48) and control characters,
/// what a carriage return takes back is gone, and a line without end is cut. The guest may print anything, in any
/// slicing; the work for a byte does not depend on what came before it.
class ConsoleLines {
 public:
  static constexpr std::size_t kLongest = 1024;  ///< bytes of a line; the rest of it is skipped

  /// Calls `line` for each line that ends within `output`.
  void feed(std::span<const std::byte> output, const std::function<void(std::string_view)>& line);

  /// What came after the last line: a prompt, or the beginning of the next.
  [[nodiscard]] std::string_view unfinished() const noexcept { return {line_.data(), length_}; }
  /// Counts lines from 1: inside feed()'s calls that line's number, else the unfinished one's.
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

 private:
  enum class State { Text, Escape, Intermediate, Csi, String };

  void add(char character) noexcept;

  std::array<char, kLongest> line_{};
  std::size_t length_ = 0;
  std::uint64_t number_ = 1;
  State state_ = State::Text;
  bool returned_ = false;  // a carriage return: the next character but a newline overwrites the line
};

}  // namespace martlet
