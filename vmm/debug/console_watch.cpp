#include "vmm/debug/console_watch.h"

namespace martlet {

void ConsoleWatch::feed(std::span<const std::byte> output) {
  for (const auto byte : output) {
    const auto character = std::to_integer<char>(byte);
    if (character == '\n') {
      look_at({line_.data(), length_});
      length_ = 0;
    } else if (character != '\r' && length_ < line_.size()) {
      line_[length_++] = character;
    }
  }
}

void ConsoleWatch::look_at(std::string_view line) {
  constexpr std::string_view kBegin = "Kernel panic - not syncing: ";
  constexpr std::string_view kEnd = "---[ end Kernel panic - not syncing";
  if (line.starts_with('[')) {  // the kernel's time stamp; anywhere else in a line the words are a quotation
    const auto stamp_end = line.find("] ");
    line.remove_prefix(stamp_end == std::string_view::npos ? 0 : stamp_end + 2);
  }
  if (line.starts_with(kEnd)) {
    panic_is_over_ = panic_.has_value();
  } else if (line.starts_with(kBegin) && !panic_) {
    panic_ = line.substr(kBegin.size());
  }
}

}  // namespace martlet
