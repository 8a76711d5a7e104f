#include "vmm/debug/virtual_memory.h"

#include <algorithm>

namespace martlet {

bool VirtualMemory::read(std::uint64_t addr, std::span<std::byte> into) const noexcept {
  while (!into.empty()) {
    const auto page = walk(*memory_, paging_, addr);
    if (!page) {
      return false;
    }
    const std::uint64_t left = page->page_size - (addr & (page->page_size - 1));
    const auto part = into.first(std::min<std::uint64_t>(left, into.size()));
    const auto from = memory_->slice(page->addr, part.size());
    if (!from) {
      return false;
    }
    std::ranges::copy(*from, part.begin());
    into = into.subspan(part.size());
    addr += part.size();
  }
  return true;
}

}  // namespace martlet
