#include "vmm/debug/kernel_text.h"

#include "vmm/debug/page_walk.h"

namespace martlet {
namespace {

constexpr std::uint64_t kImageStart = 0xffff'ffff'8000'0000;  // __START_KERNEL_map
constexpr std::uint64_t kImageSize = std::uint64_t{1} << 30U;
constexpr std::uint64_t kAlignment = std::uint64_t{2} << 20U;

std::optional<std::uint64_t> lowest_code(const GuestMemory& memory, const Paging& paging) {
  for (std::uint64_t offset = 0; offset < kImageSize; offset += kAlignment) {
    const auto page = walk(memory, paging, kImageStart + offset);
    if (page && page->executable && memory.slice(page->addr, 1)) {
      return kImageStart + offset;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> find_kernel_text(const GuestMemory& memory, const CpuState& cpu) {
  // The kernel's table first: with page table isolation the user's holds only the way in, at some place in the text.
  for (const auto& paging : {Paging::of(cpu.sregs).with_kernel_table(), Paging::of(cpu.sregs)}) {
    const auto text = lowest_code(memory, paging);
    if (!text) {
      continue;
    }
    // A CR3 with bit 12 set need not be a user's table. Once SYSCALL is set up it leads into the text, or the table
    // is none of the kernel's.
    const bool entry_known = cpu.lstar - kImageStart < kImageSize;
    const auto entry = walk(memory, paging, cpu.lstar);
    if (!entry_known || (cpu.lstar >= *text && entry && entry->executable)) {
      return text;
    }
  }
  return std::nullopt;
}

}  // namespace martlet
