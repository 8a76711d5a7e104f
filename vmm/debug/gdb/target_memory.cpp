#include "vmm/debug/gdb/target_memory.h"

#include <algorithm>

namespace martlet::gdb {
namespace {

constexpr std::uint64_t kPageSize = 4096;
constexpr std::uint64_t kPresentAndFrame = 0x000f'ffff'ffff'f001;
constexpr std::uint64_t kTableFrame = 0x000f'ffff'ffff'f000;
constexpr std::uint64_t kLongModeActive = 1U << 10U;  // EFER.LMA
constexpr std::size_t kUserEntries = 256;             // of the root table's 512

Paging other_table(Paging paging) noexcept {
  paging.cr3 ^= Paging::kUserTable;
  return paging;
}

}  // namespace

std::optional<Translation> TargetMemory::translate(const CpuState& cpu, std::uint64_t addr) const {
  const auto paging = Paging::of(cpu.sregs);
  const auto found = walk(memory_, paging, addr);
  return found || !isolates(paging) ? found : walk(memory_, other_table(paging), addr);
}

/// Whether the page next to the root table is its twin: both map the same user memory, and some. Without that test
/// the page next to an ordinary root table would be taken for tables.
bool TargetMemory::isolates(const Paging& paging) const {
  if ((paging.efer & kLongModeActive) == 0) {
    return false;
  }
  const std::uint64_t mine = paging.cr3 & kTableFrame;
  bool any = false;
  for (std::size_t i = 0; i < kUserEntries; ++i) {
    const auto here = memory_.read<std::uint64_t>(GuestAddr{mine + i * sizeof(std::uint64_t)});
    const auto there = memory_.read<std::uint64_t>(GuestAddr{(mine ^ Paging::kUserTable) + i * sizeof(std::uint64_t)});
    if (!here || !there || (*here & kPresentAndFrame) != (*there & kPresentAndFrame)) {
      return false;
    }
    any = any || (*here & 1U) != 0;
  }
  return any;
}

std::optional<TargetMemory::Piece> TargetMemory::piece_at(const CpuState& cpu, std::uint64_t addr,
                                                          std::size_t length) const {
  const auto found = physical_ ? std::optional{Translation{.addr = GuestAddr{addr}}} : translate(cpu, addr);
  const std::size_t piece = std::min<std::size_t>(length, kPageSize - addr % kPageSize);
  if (!found || !memory_.slice(found->addr, piece)) {
    return std::nullopt;
  }
  return Piece{.addr = found->addr, .length = piece};
}

std::size_t TargetMemory::read(const CpuState& cpu, std::uint64_t addr, std::span<std::byte> into) const {
  std::size_t done = 0;
  while (done < into.size()) {
    const auto piece = piece_at(cpu, addr + done, into.size() - done);
    if (!piece) {
      break;
    }
    const auto copy = into.subspan(done, piece->length);
    std::ranges::copy(*memory_.slice(piece->addr, piece->length), copy.begin());
    patches_.hide(piece->addr, copy);
    done += piece->length;
  }
  return done;
}

std::size_t TargetMemory::write(const CpuState& cpu, std::uint64_t addr, std::span<const std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const auto piece = piece_at(cpu, addr + done, bytes.size() - done);
    if (!piece) {
      break;
    }
    patches_.write(piece->addr, bytes.subspan(done, piece->length));
    done += piece->length;
  }
  return done;
}

}  // namespace martlet::gdb
