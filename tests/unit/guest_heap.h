#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <stdexcept>

#include "vmm/base/guest_addr.h"

namespace martlet {

/// Guest memory as a test's driver hands it out: first fit, and what is released may come again.
class GuestHeap {
 public:
  explicit GuestHeap(GuestRange range) : holes_{{raw(range.start), range.size}} {}

  GuestAddr allocate(std::uint64_t bytes, std::uint64_t alignment) {
    bytes = std::max<std::uint64_t>(bytes, 1);
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
      const auto [start, length] = *hole;
      const std::uint64_t addr = (start + alignment - 1) / alignment * alignment;
      if (addr + bytes <= start + length) {
        holes_.erase(hole);
        if (addr > start) {
          holes_[start] = addr - start;
        }
        if (addr + bytes < start + length) {
          holes_[addr + bytes] = start + length - addr - bytes;
        }
        blocks_[addr] = bytes;
        return GuestAddr{addr};
      }
    }
    throw std::runtime_error{"the fake guest is out of memory"};
  }

  void release(GuestAddr addr) {
    const auto block = blocks_.find(raw(addr));
    if (block == blocks_.end()) {
      throw std::runtime_error{"release of what was not allocated"};
    }
    const auto hole = holes_.emplace(block->first, block->second).first;
    blocks_.erase(block);
    join(hole, std::next(hole));
    if (hole != holes_.begin()) {
      join(std::prev(hole), hole);
    }
  }

  [[nodiscard]] std::uint64_t size_of(GuestAddr addr) const { return blocks_.at(raw(addr)); }

 private:
  using Ranges = std::map<std::uint64_t, std::uint64_t>;  // address: length

  void join(Ranges::iterator low, Ranges::iterator high) {
    if (high != holes_.end() && low->first + low->second == high->first) {
      low->second += high->second;
      holes_.erase(high);
    }
  }

  Ranges holes_;
  Ranges blocks_;
};

}  // namespace martlet
