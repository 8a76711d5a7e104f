#include "vmm/debug/console_lines.h"

namespace martlet {
namespace {

constexpr char kEscape = 0x1b;
constexpr char kBell = 0x07;

bool is_within(char character, int first, int last) noexcept {
  const auto code = static_cast<unsigned char>(character);
  return code >= first && code <= last;
}

}  // namespace

void ConsoleLines::feed(std::span<const std::byte> output, const std::function<void(std::string_view)>& line) {
  for (const auto byte : output) {
    const auto character = std::to_integer<char>(byte);
    if (character != '\n') {
      add(character);
      continue;
    }
    line({line_.data(), length_});
    length_ = 0;
    returned_ = false;
    state_ = State::Text;  // no newline gets lost in a sequence that never ends
    ++number_;
  }
}

void ConsoleLines::add(char character) noexcept {
  if (character == kEscape) {
    state_ = State::Escape;
    return;
  }
  switch (state_) {
    case State::Text:
      break;
    case State::Escape:
      state_ = character == '['                       ? State::Csi
               : character == ']' || character == 'P' ? State::String  // OSC, DCS
               : is_within(character, 0x20, 0x2f)     ? State::Intermediate
                                                      : State::Text;
      return;
    case State::Intermediate:
      state_ = is_within(character, 0x20, 0x2f) ? State::Intermediate : State::Text;
      return;
    case State::Csi:
      state_ = is_within(character, 0x20, 0x3f) ? State::Csi : State::Text;
      return;
    case State::String:
      state_ = character == kBell ? State::Text : State::String;
      return;
  }
  if (character == '\r') {
    returned_ = true;
  } else if (character == '\t' || !is_within(character, 0, 0x1f)) {
    if (returned_) {
      length_ = 0;
      returned_ = false;
    }
    if (length_ < line_.size()) {
      line_[length_++] = character;
    }
  }
}

}  // namespace martlet
