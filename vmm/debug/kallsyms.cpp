#include "vmm/debug/kallsyms.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "vmm/debug/virtual_memory.h"

// How Linux packs its symbols (scripts/kallsyms.c): their names one after the other, each its length and then tokens of
// a byte, whose texts are in a table of 256 strings; the first character is nm's type letter. Their addresses apart, in
// the same order.

namespace martlet {
namespace {

constexpr std::uint32_t kMaxSymbols = 1U << 20U;  // a distribution's kernel has 0.2 million
constexpr std::size_t kMaxTokens = 64U << 10U;
constexpr std::size_t kMaxName = 512;  // KSYM_NAME_LEN
constexpr std::size_t kTokens = 256;
constexpr std::size_t kMaxPacked = 16U << 20U;    // bytes of all names; a distribution's kernel has 2 MiB,
constexpr std::size_t kMaxUnpacked = 64U << 20U;  // and so many when they are spelled out: 5 MiB

/// Up to `size` bytes from `addr`, as far as they are mapped.
std::vector<std::byte> read_up_to(const VirtualMemory& memory, std::uint64_t addr, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::size_t got = 0;
  while (got < size) {
    const std::size_t part = std::min<std::size_t>(4096 - (addr + got) % 4096, size - got);
    if (!memory.read(addr + got, std::span{bytes}.subspan(got, part))) {
      break;
    }
    got += part;
  }
  bytes.resize(got);
  return bytes;
}

class TokenTable {
 public:
  TokenTable(const VirtualMemory& memory, std::uint64_t table, std::uint64_t index)
      : texts_{read_up_to(memory, table, kMaxTokens)} {
    good_ = memory.read(index, std::as_writable_bytes(std::span{places_}));
  }
  [[nodiscard]] bool good() const noexcept { return good_; }
  [[nodiscard]] std::string_view text(std::byte token) const {
    const std::size_t place = places_[std::to_integer<std::size_t>(token)];
    if (place >= texts_.size()) {
      return {};
    }
    const auto* const begin = reinterpret_cast<const char*>(texts_.data()) + place;
    return {begin, ::strnlen(begin, std::min(kMaxName, texts_.size() - place))};
  }

 private:
  std::vector<std::byte> texts_;
  std::array<std::uint16_t, kTokens> places_{};
  bool good_ = false;
};

/// Goes through the packed names, a page of them at a time.
class Names {
 public:
  Names(const VirtualMemory& memory, std::uint64_t addr) : memory_{memory}, addr_{addr} {}

  /// False at the end of what is mapped, or believed.
  bool next(const TokenTable& tokens, std::string& name) {
    name.clear();
    auto length = std::to_integer<std::size_t>(take());
    if ((length & 0x80U) != 0) {  // since 6.1: seven bits, then more
      length = (length & 0x7fU) | std::to_integer<std::size_t>(take()) << 7U;
    }
    for (; length > 0 && good_; --length) {
      if (name.size() < kMaxName) {
        name += tokens.text(take()).substr(0, kMaxName - name.size());
      } else {
        take();
      }
    }
    return good_;
  }

 private:
  std::byte take() {
    if (at_ == buffer_.size()) {
      good_ = good_ && taken_ < kMaxPacked;
      buffer_ = read_up_to(memory_, addr_, 4096);
      addr_ += buffer_.size();
      taken_ += buffer_.size();
      at_ = 0;
      good_ = good_ && !buffer_.empty();
    }
    return good_ ? buffer_[at_++] : std::byte{};
  }

  const VirtualMemory& memory_;
  std::uint64_t addr_;
  std::vector<std::byte> buffer_;
  std::size_t at_ = 0;
  std::size_t taken_ = 0;
  bool good_ = true;
};

/// The addresses: 64 bits each, or 32 bits from a base.
std::vector<std::uint64_t> read_addresses(const VirtualMemory& memory, const VmCoreInfo& info, std::uint32_t count) {
  std::vector<std::uint64_t> addresses(count);
  if (const auto table = info.symbol("kallsyms_addresses")) {
    return memory.read(*table, std::as_writable_bytes(std::span{addresses})) ? addresses : std::vector<std::uint64_t>{};
  }
  std::vector<std::int32_t> offsets(count);
  const auto table = info.symbol("kallsyms_offsets");
  const auto base_at = info.symbol("kallsyms_relative_base");
  const auto base = base_at ? memory.read<std::uint64_t>(*base_at) : std::nullopt;
  if (!table || !base || !memory.read(*table, std::as_writable_bytes(std::span{offsets}))) {
    return {};
  }
  // Until 6.14, kernels with CPUs of their own sections (CONFIG_KALLSYMS_ABSOLUTE_PERCPU) count downwards from -1, and
  // what is not negative is no address of the kernel's image.
  const bool downwards = std::ranges::count_if(offsets, [](std::int32_t offset) { return offset < 0; }) * 2 > count;
  std::ranges::transform(offsets, addresses.begin(), [&](std::int32_t offset) {
    if (!downwards) {
      return *base + static_cast<std::uint32_t>(offset);
    }
    return offset < 0 ? *base - 1 - static_cast<std::uint64_t>(std::int64_t{offset}) : 0;
  });
  return addresses;
}

}  // namespace

Symbols read_kallsyms(const GuestMemory& memory, const VmCoreInfo& info) {
  Symbols symbols;
  const auto paging = info.kernel_paging();
  const auto names_at = info.symbol("kallsyms_names");
  const auto count_at = info.symbol("kallsyms_num_syms");
  const auto table = info.symbol("kallsyms_token_table");
  const auto index = info.symbol("kallsyms_token_index");
  if (!paging || !names_at || !count_at || !table || !index) {
    return symbols;
  }
  const VirtualMemory kernel{memory, *paging};
  const auto count = kernel.read<std::uint32_t>(*count_at);
  const TokenTable tokens{kernel, *table, *index};
  if (!count || *count > kMaxSymbols || !tokens.good()) {
    return symbols;
  }
  const auto addresses = read_addresses(kernel, info, *count);
  Names names{kernel, *names_at};
  std::string name;
  std::size_t unpacked = 0;
  for (const auto address : addresses) {
    if (!names.next(tokens, name)) {
      break;
    }
    unpacked += name.size();
    if (unpacked > kMaxUnpacked) {
      break;
    }
    const bool plain = std::ranges::all_of(name, [](char c) { return c > ' ' && c <= '~'; });
    if (plain && name.size() > 1) {
      symbols.add(address, 0, std::string_view{name}.substr(1));
    }
  }
  symbols.sort();
  return symbols;
}

}  // namespace martlet
