#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace martlet {

/// Reads along on a guest's console, line by line, for the words by which Linux says that it
/// panicked (kernel/panic.c). The guest may print anything; a line is looked at up to 512 bytes.
class ConsoleWatch {
 public:
  void feed(std::span<const std::byte> output);

  /// The first panic's message, e.g. "Attempted to kill init! exitcode=0x00000000".
  [[nodiscard]] const std::optional<std::string>& panic() const noexcept { return panic_; }
  /// The kernel has said all it will say about its panic.
  [[nodiscard]] bool panic_is_over() const noexcept { return panic_is_over_; }

 private:
  void look_at(std::string_view line);

  std::array<char, 512> line_{};
  std::size_t length_ = 0;
  std::optional<std::string> panic_;
  bool panic_is_over_ = false;
};

}  // namespace martlet
