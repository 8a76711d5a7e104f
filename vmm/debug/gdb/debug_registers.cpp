#include "vmm/debug/gdb/debug_registers.h"

#include <algorithm>

namespace martlet::gdb {
namespace {

// DR7, Intel SDM vol. 3, 18.2.4
constexpr std::uint64_t kAlwaysSet = 1U << 10U;
constexpr std::uint64_t kGlobalExact = 1U << 9U;
constexpr std::uint64_t kOnCode = 0b00;
constexpr std::uint64_t kOnWrite = 0b01;
constexpr std::uint64_t kOnAccess = 0b11;

constexpr std::uint64_t global_enable(std::size_t slot) { return std::uint64_t{2} << 2 * slot; }

std::uint64_t length_code(unsigned length) { return length == 8 ? 0b10U : length - 1; }

std::uint64_t condition(StopAt at) {
  switch (at) {
    case StopAt::Code:
    case StopAt::CodeHardware:
      return kOnCode;
    case StopAt::Write:
      return kOnWrite;
    case StopAt::Read:
    case StopAt::Access:
      return kOnAccess;
  }
  return kOnAccess;
}

/// The longest piece a debug register can watch from `addr` on.
unsigned longest_piece(std::uint64_t addr, std::uint64_t length) {
  for (const unsigned piece : {8U, 4U, 2U}) {
    if (addr % piece == 0 && length >= piece) {
      return piece;
    }
  }
  return 1;
}

}  // namespace

bool DebugRegisters::insert(const Breakpoint& breakpoint) {
  if (has(breakpoint)) {
    return true;
  }
  auto slots = slots_;
  std::uint64_t addr = breakpoint.addr;
  std::uint64_t left = breakpoint.of_code() ? 1 : breakpoint.length;
  if (left == 0) {
    return false;
  }
  while (left > 0) {
    const auto free = std::ranges::find_if(slots, [](const auto& slot) { return !slot; });
    if (free == slots.end()) {
      return false;
    }
    const unsigned piece = longest_piece(addr, left);
    *free = Slot{.owner = breakpoint, .addr = addr, .length = piece};
    addr += piece;
    left -= piece;
  }
  slots_ = slots;
  return true;
}

void DebugRegisters::remove(const Breakpoint& breakpoint) {
  for (auto& slot : slots_) {
    if (slot && slot->owner == breakpoint) {
      slot.reset();
    }
  }
}

bool DebugRegisters::has(const Breakpoint& breakpoint) const {
  return std::ranges::any_of(slots_, [&](const auto& slot) { return slot && slot->owner == breakpoint; });
}

bool DebugRegisters::has_code(std::uint64_t pc) const {
  return std::ranges::any_of(slots_,
                             [&](const auto& slot) { return slot && slot->owner.of_code() && slot->addr == pc; });
}

std::optional<Breakpoint> DebugRegisters::hit(std::uint64_t dr6) const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] && (dr6 >> i & 1U) != 0) {
      return slots_[i]->owner;
    }
  }
  return std::nullopt;
}

void DebugRegisters::fill(GuestDebug& debug, std::optional<std::uint64_t> except) const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto& slot = slots_[i];
    if (!slot || (slot->owner.of_code() && slot->addr == except)) {
      continue;
    }
    debug.dr[i] = slot->addr;
    debug.dr7 |= kAlwaysSet | kGlobalExact | global_enable(i) |
                 (condition(slot->owner.at) | length_code(slot->length) << 2U) << (16 + 4 * i);
  }
}

}  // namespace martlet::gdb
