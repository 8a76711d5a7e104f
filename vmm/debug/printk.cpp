#include "vmm/debug/printk.h"

#include <cstddef>

namespace martlet {
namespace {

constexpr std::size_t kFractionDigits = 6;

bool is_digit(char character) noexcept { return character >= '0' && character <= '9'; }

/// Takes things off the front of a line.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_{text} {}

  bool take(char character) noexcept {
    const bool is_there = text_.starts_with(character);
    text_.remove_prefix(is_there ? 1 : 0);
    return is_there;
  }
  void skip_spaces() noexcept {
    while (take(' ')) {
    }
  }
  std::optional<std::uint64_t> number(std::size_t most_digits, std::size_t* digits = nullptr) noexcept {
    std::uint64_t value = 0;
    std::size_t count = 0;
    while (count < most_digits && count < text_.size() && is_digit(text_[count])) {
      value = value * 10 + static_cast<std::uint64_t>(text_[count] - '0');
      ++count;
    }
    text_.remove_prefix(count);
    if (digits != nullptr) {
      *digits = count;
    }
    return count == 0 ? std::nullopt : std::optional{value};
  }
  /// "[    T1]" or "[   C12]": a task or a CPU.
  bool caller() noexcept {
    const auto before = text_;
    if (take('[')) {
      skip_spaces();
      if ((take('T') || take('C')) && number(10) && take(']')) {
        return true;
      }
    }
    text_ = before;
    return false;
  }
  [[nodiscard]] std::string_view rest() const noexcept { return text_; }

 private:
  std::string_view text_;
};

struct Stamp {
  std::uint64_t microseconds;
  std::string_view rest;
};

std::optional<Stamp> stamp_at(std::string_view text) noexcept {
  Scanner scan{text};
  if (!scan.take('[')) {
    return std::nullopt;
  }
  scan.skip_spaces();
  const auto seconds = scan.number(10);
  std::size_t digits = 0;
  if (!seconds || !scan.take('.')) {
    return std::nullopt;
  }
  const auto fraction = scan.number(kFractionDigits, &digits);
  if (digits != kFractionDigits || !scan.take(']')) {
    return std::nullopt;
  }
  static_cast<void>(scan.caller());
  if (!scan.take(' ')) {
    return std::nullopt;
  }
  return Stamp{.microseconds = *seconds * 1'000'000 + *fraction, .rest = scan.rest()};
}

}  // namespace

PrintkLine take_apart(std::string_view line) noexcept {
  for (auto at = line.find('['); at != std::string_view::npos; at = line.find('[', at + 1)) {
    if (const auto stamp = stamp_at(line.substr(at))) {
      return {.before = line.substr(0, at), .text = stamp->rest, .stamp = stamp->microseconds};
    }
  }
  return {.before = line};
}

std::string_view without_caller(std::string_view line) noexcept {
  Scanner scan{line};
  return scan.caller() && scan.take(' ') ? scan.rest() : line;
}

}  // namespace martlet
