#include "vmm/debug/page_walk.h"

#include <cstddef>

namespace martlet {
namespace {

constexpr std::uint64_t bit(unsigned place) { return std::uint64_t{1} << place; }
constexpr std::uint64_t low_bits(unsigned count) { return bit(count) - 1; }

constexpr std::uint64_t kCr0Paging = bit(31);
constexpr std::uint64_t kCr4LargePages = bit(4);  // PSE
constexpr std::uint64_t kCr4Pae = bit(5);
constexpr std::uint64_t kCr4FiveLevels = bit(12);  // LA57
constexpr std::uint64_t kEferLongMode = bit(10);   // LMA: active, not only enabled
constexpr std::uint64_t kEferNoExecute = bit(11);

constexpr std::uint64_t kPresent = bit(0);
constexpr std::uint64_t kWritable = bit(1);
constexpr std::uint64_t kUser = bit(2);
constexpr std::uint64_t kLarge = bit(7);  // PS; in the last level another bit (PAT)
constexpr std::uint64_t kNoExecute = bit(63);
constexpr std::uint64_t kFrame = low_bits(52) & ~low_bits(12);

constexpr unsigned kPageBits = 12;

/// The kind of tables: how many levels, what a level translates, how wide an entry is.
struct Format {
  unsigned levels;
  unsigned index_bits;
  std::uint64_t entry_size;
  unsigned largest_leaf;  // the highest level (from 1) whose entries may be pages
  bool long_mode;
};

Format format_of(const Paging& paging) noexcept {
  if ((paging.efer & kEferLongMode) != 0) {
    const unsigned levels = (paging.cr4 & kCr4FiveLevels) != 0 ? 5 : 4;
    return {.levels = levels, .index_bits = 9, .entry_size = 8, .largest_leaf = 3, .long_mode = true};
  }
  if ((paging.cr4 & kCr4Pae) != 0) {
    return {.levels = 3, .index_bits = 9, .entry_size = 8, .largest_leaf = 2, .long_mode = false};
  }
  const unsigned largest_leaf = (paging.cr4 & kCr4LargePages) != 0 ? 2 : 1;
  return {.levels = 2, .index_bits = 10, .entry_size = 4, .largest_leaf = largest_leaf, .long_mode = false};
}

bool is_canonical(std::uint64_t addr, const Format& format) noexcept {
  const unsigned bits = kPageBits + format.levels * format.index_bits;
  if (!format.long_mode) {
    return addr <= low_bits(32);
  }
  const std::uint64_t high = addr >> (bits - 1);
  return high == 0 || high == low_bits(64 - (bits - 1));
}

std::optional<std::uint64_t> read_entry(const GuestMemory& memory, const Format& format, std::uint64_t addr) noexcept {
  if (format.entry_size == sizeof(std::uint32_t)) {
    const auto entry = memory.read<std::uint32_t>(GuestAddr{addr});
    return entry ? std::optional<std::uint64_t>{*entry} : std::nullopt;
  }
  return memory.read<std::uint64_t>(GuestAddr{addr});
}

/// Where the tables begin: CR3 without what else is in it (PCID, PWT, PCD).
std::uint64_t root_of(const Paging& paging, const Format& format) noexcept {
  if (format.long_mode) {
    return paging.cr3 & kFrame;
  }
  const unsigned alignment = format.entry_size == 8 ? 5 : kPageBits;  // PAE: four entries, 32 bytes
  return paging.cr3 & low_bits(32) & ~low_bits(alignment);
}

/// Where an entry's page begins, nothing when bits that must be 0 are not (SDM vol. 3, tables 4-4 to 4-20).
std::optional<std::uint64_t> page_of(std::uint64_t entry, const Format& format, unsigned shift) noexcept {
  if (format.entry_size == sizeof(std::uint32_t)) {
    if (shift == kPageBits) {
      return entry & ~low_bits(kPageBits);
    }
    if ((entry & bit(21)) != 0) {
      return std::nullopt;
    }
    return (entry & ~low_bits(shift)) | (entry >> 13U & low_bits(8)) << 32U;  // PSE-36
  }
  const std::uint64_t must_be_zero = low_bits(shift) & ~low_bits(kPageBits + 1);  // bit 12 of a large page is PAT
  if (shift > kPageBits && (entry & must_be_zero) != 0) {
    return std::nullopt;
  }
  return entry & kFrame & ~low_bits(shift);
}

}  // namespace

std::optional<Translation> walk(const GuestMemory& memory, const Paging& paging, std::uint64_t addr) noexcept {
  if ((paging.cr0 & kCr0Paging) == 0) {
    return Translation{
        .addr = GuestAddr{addr}, .page_size = bit(kPageBits), .writable = true, .user = true, .executable = true};
  }
  const Format format = format_of(paging);
  if (!is_canonical(addr, format)) {
    return std::nullopt;
  }
  Translation result{.addr = {}, .page_size = 0, .writable = true, .user = true, .executable = true};
  const bool no_execute = (paging.efer & kEferNoExecute) != 0;
  const bool wide = format.entry_size == sizeof(std::uint64_t);
  std::uint64_t table = root_of(paging, format);
  for (unsigned level = format.levels; level > 0; --level) {
    const unsigned shift = kPageBits + (level - 1) * format.index_bits;
    const std::uint64_t index = addr >> shift & low_bits(format.index_bits);
    const auto entry = read_entry(memory, format, table + index * format.entry_size);
    if (!entry || (*entry & kPresent) == 0 || (wide && (*entry & kNoExecute) != 0 && !no_execute)) {
      return std::nullopt;
    }
    const bool pae_root = !format.long_mode && level == 3;  // its entries hold no permissions (SDM table 4-8)
    result.writable = result.writable && (pae_root || (*entry & kWritable) != 0);
    result.user = result.user && (pae_root || (*entry & kUser) != 0);
    result.executable = result.executable && (!wide || (*entry & kNoExecute) == 0);
    const bool large = level > 1 && (*entry & kLarge) != 0 && (wide || format.largest_leaf > 1);
    if (large && level > format.largest_leaf) {
      return std::nullopt;  // reserved
    }
    if (large || level == 1) {
      const auto page = page_of(*entry, format, shift);
      if (!page) {
        return std::nullopt;
      }
      result.addr = GuestAddr{*page | (addr & low_bits(shift))};
      result.page_size = bit(shift);
      return result;
    }
    table = *entry & (wide ? kFrame : ~low_bits(kPageBits));
  }
  return std::nullopt;
}

}  // namespace martlet
