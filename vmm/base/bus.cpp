#include "vmm/base/bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace martlet {

void Bus::insert(std::uint64_t start, std::uint64_t size, std::string_view name, BusDevice& device) {
  if (frozen_) {
    throw std::logic_error{fmt::format("{} comes too late: the bus is frozen", name)};
  }
  if (size == 0 || start + (size - 1) < start) {
    throw std::logic_error{fmt::format("bus range of {} is empty or wraps", name)};
  }
  const auto next = std::ranges::upper_bound(entries_, start, {}, [](const Entry& entry) { return entry.start; });
  if (next != entries_.end() && next->start - start < size) {
    throw std::logic_error{fmt::format("bus ranges of {} and {} overlap", name, next->name)};
  }
  if (next != entries_.begin() && start - std::prev(next)->start < std::prev(next)->size) {
    throw std::logic_error{fmt::format("bus ranges of {} and {} overlap", std::prev(next)->name, name)};
  }
  entries_.insert(next, Entry{.start = start, .size = size, .device = &device, .name = std::string{name}});
}

const Bus::Entry* Bus::find(std::uint64_t addr, std::uint64_t length, LastHit& last) const noexcept {
  // An address below an entry's start wraps to a huge offset, so one comparison checks both ends.
  const auto holds = [&](const Entry& entry) {
    const std::uint64_t offset = addr - entry.start;
    return offset < entry.size && length <= entry.size - offset;
  };
  if (last.index < entries_.size() && holds(entries_[last.index])) {
    return &entries_[last.index];
  }
  const auto next = std::ranges::upper_bound(entries_, addr, {}, [](const Entry& entry) { return entry.start; });
  if (next == entries_.begin() || !holds(*std::prev(next))) {
    return nullptr;
  }
  last.index = static_cast<std::uint32_t>(index_of(*std::prev(next)));
  return &*std::prev(next);
}

}  // namespace martlet
