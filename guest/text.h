#pragma once
// What the guest's init does with words: pure, and tested on the host (tests/unit/guest_init_test.cpp).

#include <array>
#include <cstddef>
#include <string_view>

namespace guest {

/// A line of bounded length, always ended by a NUL; what does not fit is cut.
class Line {
 public:
  constexpr Line& operator<<(std::string_view more) noexcept {
    for (const char c : more) {
      if (size_ + 1 < text_.size()) {
        text_[size_++] = c;
      }
    }
    return *this;
  }
  constexpr Line& operator<<(long number) noexcept {
    char digits[20] = {};
    std::size_t count = 0;
    unsigned long rest = number < 0 ? -static_cast<unsigned long>(number) : static_cast<unsigned long>(number);
    do {
      digits[count++] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    *this << (number < 0 ? "-" : "");
    while (count > 0) {
      *this << std::string_view{&digits[--count], 1};
    }
    return *this;
  }
  [[nodiscard]] constexpr const char* c_str() const noexcept { return text_.data(); }
  [[nodiscard]] constexpr std::string_view view() const noexcept { return {text_.data(), size_}; }

 private:
  std::array<char, 512> text_{};
  std::size_t size_ = 0;
};

/// Takes what is before the next `separator` from the front of `rest`, and the separator with it.
constexpr std::string_view take_until(std::string_view& rest, char separator) noexcept {
  const auto end = rest.find(separator);
  const auto length = end == std::string_view::npos ? rest.size() : end;
  const std::string_view taken{rest.data(), length};
  rest.remove_prefix(length == rest.size() ? length : length + 1);
  return taken;
}

/// Whether `command` means something to a shell beyond words between blanks.
constexpr bool needs_shell(std::string_view command) noexcept {
  return command.find_first_of("|&;<>()$`\\\"'*?[#~\n") != std::string_view::npos;
}

/// Cuts `text` into words at its blanks, in place, and returns how many; `words` gets them and a null.
inline std::size_t split_words(char* text, char** words, std::size_t most) noexcept {
  std::size_t count = 0;
  for (bool blank = true; *text != '\0'; ++text) {
    const bool was_blank = blank;
    blank = *text == ' ' || *text == '\t';
    if (blank) {
      *text = '\0';
    } else if (was_blank && count + 1 < most) {
      words[count++] = text;
    }
  }
  words[count] = nullptr;
  return count;
}

/// The line "PATH.ko…: DEPENDENCY…" of the module called `name` in a modules.dep; empty when it is not there.
constexpr std::string_view find_module(std::string_view modules_dep, std::string_view name) noexcept {
  while (!modules_dep.empty()) {
    const auto line = take_until(modules_dep, '\n');
    auto rest = line;
    auto file = take_until(rest, ':');
    file.remove_prefix(file.rfind('/') + 1);  // npos + 1 is 0
    if (file.starts_with(name)) {
      file.remove_prefix(name.size());
      if (file.starts_with(".ko")) {
        return line;
      }
    }
  }
  return {};
}

/// What wait(2) says of a process, as the host is told: "exit 3\n", "signal 9\n".
constexpr Line status_line(int status) noexcept {
  const int signal = status & 0x7f;
  Line line;
  return line << (signal == 0 ? "exit " : "signal ") << static_cast<long>(signal == 0 ? status >> 8 & 0xff : signal)
              << "\n";
}

}  // namespace guest
