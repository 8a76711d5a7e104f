#include "vmm/debug/console_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace martlet {

void ConsoleLog::add(std::span<const std::byte> output) {
  std::string_view text{reinterpret_cast<const char*>(output.data()), output.size()};
  const auto head = text.substr(0, kBeginning - beginning_.size());
  beginning_ += head;
  text.remove_prefix(head.size());
  const auto fill = text.substr(0, kEnd - end_.size());
  end_ += fill;
  text.remove_prefix(fill.size());
  lost_ += text.size();
  while (!text.empty()) {
    const auto piece = text.substr(0, kEnd - next_);
    std::ranges::copy(piece, end_.begin() + static_cast<std::ptrdiff_t>(next_));
    next_ = (next_ + piece.size()) % kEnd;
    text.remove_prefix(piece.size());
  }
}

std::string ConsoleLog::text() const {
  if (lost_ == 0) {
    return beginning_ + end_;
  }
  return beginning_ + fmt::format("\n[martlet: {} bytes of console output are not kept]\n", lost_) +
         end_.substr(next_) + end_.substr(0, next_);
}

std::string ConsoleLog::last(std::size_t lines) const {
  auto log = text();
  std::erase(log, '\r');
  log.erase(log.find_last_not_of('\n') + 1);
  std::size_t begin = log.size();
  for (std::size_t i = 0; i < lines && begin != std::string::npos && begin != 0; ++i) {
    begin = log.rfind('\n', begin - 1);
  }
  log.erase(0, begin == std::string::npos || begin == 0 ? 0 : begin + 1);
  return log;
}

}  // namespace martlet
