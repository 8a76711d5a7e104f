#include "vmm/debug/orc.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "vmm/debug/virtual_memory.h"

namespace martlet {
namespace {

constexpr std::size_t kIpSize = 4;     // a signed distance from itself to the instruction
constexpr std::size_t kEntrySize = 6;  // two offsets and 16 bits (arch/x86/include/asm/orc_types.h)
constexpr std::size_t kMaxRows = 4U << 20U;
constexpr std::uint64_t kMaxDistance = 1U << 20U;  // the last row's code ends somewhere

template <class T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::vector<std::byte> read_between(const VirtualMemory& memory, const Symbols& symbols, std::string_view from,
                                    std::string_view to, std::size_t limit) {
  const auto begin = symbols.address_of(from);
  const auto end = symbols.address_of(to);
  if (!begin || !end || *end < *begin || *end - *begin > limit) {
    return {};
  }
  std::vector<std::byte> bytes(*end - *begin);
  return memory.read(*begin, bytes) ? bytes : std::vector<std::byte>{};
}

}  // namespace

OrcTable::OrcTable(std::uint64_t ip_address, std::span<const std::byte> ips, std::span<const std::byte> entries) {
  const std::size_t count = std::min({ips.size() / kIpSize, entries.size() / kEntrySize, kMaxRows});
  rows_.reserve(count);
  std::size_t calls_new = 0;
  std::size_t calls_old = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto distance = static_cast<std::uint64_t>(std::int64_t{load<std::int32_t>(ips, i * kIpSize)});
    const auto bits = load<std::uint16_t>(entries, i * kEntrySize + 4);
    rows_.push_back({.ip = ip_address + i * kIpSize + distance,
                     .sp_offset = load<std::int16_t>(entries, i * kEntrySize),
                     .bp_offset = load<std::int16_t>(entries, i * kEntrySize + 2),
                     .bits = bits});
    calls_new += (bits >> 8U & 7U) == 2 ? 1U : 0U;
    calls_old += (bits >> 8U & 7U) == 0 ? 1U : 0U;
  }
  // Most code was called. (The .orc_header that tells newer formats apart is not in a running kernel's memory.)
  format_ = calls_new > calls_old ? Format::New : Format::Old;
  if (!std::ranges::is_sorted(rows_, {}, &Row::ip)) {  // before 5.6 the kernel did it at its start
    std::ranges::stable_sort(rows_, {}, &Row::ip);
  }
}

OrcTable::OrcTable(const ElfFile& vmlinux) {
  const auto ips = vmlinux.section(".orc_unwind_ip");
  const auto entries = vmlinux.section(".orc_unwind");
  if (ips && entries) {
    *this = OrcTable{ips->address, ips->bytes, entries->bytes};
  }
}

OrcTable::OrcTable(const GuestMemory& memory, const VmCoreInfo& info, const Symbols& symbols) {
  const auto paging = info.kernel_paging();
  const auto ip_address = symbols.address_of("__start_orc_unwind_ip");
  if (!paging || !ip_address) {
    return;
  }
  const VirtualMemory kernel{memory, *paging};
  const auto ips = read_between(kernel, symbols, "__start_orc_unwind_ip", "__stop_orc_unwind_ip", kMaxRows * kIpSize);
  const auto entries = read_between(kernel, symbols, "__start_orc_unwind", "__stop_orc_unwind", kMaxRows * kEntrySize);
  *this = OrcTable{*ip_address, ips, entries};
}

std::optional<OrcTable::Entry> OrcTable::find(std::uint64_t ip) const {
  const auto above = std::ranges::upper_bound(rows_, ip - offset_, {}, &Row::ip);
  if (above == rows_.begin() || ip - offset_ - (above - 1)->ip > kMaxDistance) {
    return std::nullopt;
  }
  const Row& row = *(above - 1);
  Entry entry{.kind = Kind::Unknown,
              .sp_base = static_cast<Base>(row.bits & 0xfU),
              .bp_base = static_cast<Base>(row.bits >> 4U & 0xfU),
              .sp_offset = row.sp_offset,
              .bp_offset = row.bp_offset};
  if (format_ == Format::New) {
    constexpr std::array kKinds{Kind::Unknown, Kind::EndOfStack, Kind::Call, Kind::Regs, Kind::PartialRegs};
    const std::size_t type = row.bits >> 8U & 7U;
    entry.kind = type < kKinds.size() ? kKinds[type] : Kind::Unknown;
    return entry;
  }
  constexpr std::array kKinds{Kind::Call, Kind::Regs, Kind::PartialRegs, Kind::Unknown};
  entry.kind = kKinds[row.bits >> 8U & 3U];
  if (entry.sp_base == Base::Undefined) {
    // "end" is the bit after "type", or after "signal", which later updates of these kernels put between.
    entry.kind = (row.bits >> 10U & 3U) != 0 ? Kind::EndOfStack : Kind::Unknown;
  }
  return entry;
}

}  // namespace martlet
