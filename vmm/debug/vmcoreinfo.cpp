#include "vmm/debug/vmcoreinfo.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "vmm/base/touched_pages.h"

namespace martlet {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMaxText = 2 * kPage;  // Linux' own limit is a page
constexpr std::uint64_t kKernelMap = 0xffff'ffff'8000'0000;
constexpr std::string_view kFirstKey = "OSRELEASE=";
constexpr std::string_view kNoteName{"VMCOREINFO\0", 11};
constexpr std::string_view kNameAndText{"VMCOREINFO\0\0OSRELEASE=", 22};  // the name padded to 12 bytes

// How a kernel that isolates nothing from itself has its paging.
constexpr std::uint64_t kCr0Paging = 0x8000'0001;
constexpr std::uint64_t kCr4Pae = 0x20;
constexpr std::uint64_t kCr4FiveLevels = 0x1000;
constexpr std::uint64_t kEferLongModeNoExecute = 0xd00;

template <class T>
std::optional<T> parse_number(std::string_view text, int base) {
  if (text.starts_with("0x")) {
    text.remove_prefix(2);
    base = 16;
  }
  T value{};
  const auto* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  return error == std::errc{} && stop == end && !text.empty() ? std::optional{value} : std::nullopt;
}

/// The text that begins at `addr`, up to its NUL, `limit` or the end of RAM.
std::string_view text_at(const GuestMemory::Region& region, std::uint64_t offset, std::uint64_t limit) {
  const auto bytes = region.bytes.subspan(offset);
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  return text.substr(0, std::min<std::uint64_t>(limit, kMaxText));
}

/// The text of the note that begins at `offset`, or of the page that the kernel keeps it in besides.
std::string_view candidate_at(const GuestMemory::Region& region, std::uint64_t offset) {
  const auto bytes = region.bytes.subspan(offset);
  if (bytes.size() < kPage) {
    return {};
  }
  if (std::memcmp(bytes.data(), kFirstKey.data(), kFirstKey.size()) == 0) {
    return text_at(region, offset, kPage);
  }
  Elf64_Nhdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.n_namesz != kNoteName.size() || header.n_type != 0 ||
      std::memcmp(bytes.data() + sizeof header, kNameAndText.data(), kNameAndText.size()) != 0) {
    return {};
  }
  return text_at(region, offset + sizeof header + 12, header.n_descsz);
}

class Search {
 public:
  explicit Search(const GuestMemory& memory) : memory_{&memory} {}

  /// False when there is no need to look further.
  bool consider(std::string_view candidate) {
    if (candidate.empty()) {
      return true;
    }
    if (auto info = VmCoreInfo::parse(candidate)) {
      const bool proven = is_proven(*info);
      if (proven || !found_) {
        found_ = std::move(info);
      }
      if (proven) {
        return false;
      }
    }
    return --patience_ > 0;
  }

  /// Another kind of place is looked at, whatever the guest filled the first kind with.
  void begin_anew() { patience_ = kPatience; }

  std::optional<VmCoreInfo> found() && { return std::move(found_); }
  [[nodiscard]] bool found_any() const { return found_.has_value(); }

 private:
  static constexpr int kPatience = 256;  // candidates; a guest can fill its memory with them

  /// The kernel's page tables are where it says they are: they map themselves.
  [[nodiscard]] bool is_proven(const VmCoreInfo& info) const {
    const auto paging = info.kernel_paging();
    const auto tables = info.symbol("swapper_pg_dir");
    const auto mapped = paging && tables ? walk(*memory_, *paging, *tables) : std::nullopt;
    return mapped && raw(mapped->addr) == paging->cr3;
  }

  const GuestMemory* memory_;
  std::optional<VmCoreInfo> found_;
  int patience_ = kPatience;
};

const GuestMemory::Region& region_of(const GuestMemory& memory, GuestAddr addr) {
  return *std::ranges::find_if(memory.regions(), [&](const auto& region) { return region.range.contains({addr, 1}); });
}

/// False when it is there, and the kernel's.
bool search_at(const GuestMemory& memory, const GuestRange& told, Search& search) {
  const auto regions = memory.regions();
  const auto region = std::ranges::find_if(regions, [&](const auto& r) { return r.range.contains(told); });
  return region == regions.end() || search.consider(candidate_at(*region, raw(told.start) - raw(region->range.start)));
}

/// Linux since 4.13 keeps the note in pages of its own.
void search_page_starts(const GuestMemory& memory, Search& search) {
  visit_touched(memory, [&](const GuestRange& run) {
    const auto& region = region_of(memory, run.start);
    const std::uint64_t begin = raw(run.start) - raw(region.range.start);
    for (std::uint64_t offset = begin; offset < begin + run.size; offset += kPage) {
      if (!search.consider(candidate_at(region, offset))) {
        return false;
      }
    }
    return true;
  });
}

/// Older kernels have it among their variables.
void search_everywhere(const GuestMemory& memory, Search& search) {
  visit_touched(memory, [&](const GuestRange& run) {
    const auto& region = region_of(memory, run.start);
    const std::uint64_t begin = raw(run.start) - raw(region.range.start);
    const auto* const base = region.bytes.data();
    const auto* at = base + begin;
    const auto* const end = at + run.size;
    while (const void* hit =
               ::memmem(at, static_cast<std::size_t>(end - at), kNameAndText.data(), kNameAndText.size())) {
      const auto* const name = static_cast<const std::byte*>(hit);
      if (!search.consider(text_at(region, static_cast<std::uint64_t>(name - base) + 12, kMaxText))) {
        return false;
      }
      at = name + 1;
    }
    return true;
  });
}

}  // namespace

std::optional<VmCoreInfo> VmCoreInfo::parse(std::string_view guest_text) {
  std::string copy{guest_text.substr(0, kMaxText)};  // once: the guest may change it
  copy.resize(std::min(copy.find('\0'), copy.size()));
  if (!copy.starts_with(kFirstKey)) {
    return std::nullopt;
  }
  VmCoreInfo info;
  for (std::string_view rest = copy; !rest.empty();) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto equals = line.find('=');
    const bool plain = std::ranges::all_of(line, [](char c) { return c >= ' ' && c <= '~'; });
    if (!plain || equals == std::string_view::npos) {
      return std::nullopt;
    }
    info.values_.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  info.text_ = std::move(copy);
  return info.value("PAGESIZE") == "4096" ? std::optional{std::move(info)} : std::nullopt;
}

std::string_view VmCoreInfo::value(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::string_view{} : found->second;
}

std::optional<std::uint64_t> VmCoreInfo::unsigned_value(std::string_view kind, std::string_view name, int base) const {
  return parse_number<std::uint64_t>(value(fmt::format("{}({})", kind, name)), base);
}

std::optional<std::uint64_t> VmCoreInfo::symbol(std::string_view name) const {
  return unsigned_value("SYMBOL", name, 16);
}
std::optional<std::uint64_t> VmCoreInfo::offset(std::string_view field) const {
  return unsigned_value("OFFSET", field, 10);
}
std::optional<std::uint64_t> VmCoreInfo::size(std::string_view type) const { return unsigned_value("SIZE", type, 10); }

std::optional<std::int64_t> VmCoreInfo::number(std::string_view name) const {
  return parse_number<std::int64_t>(value(fmt::format("NUMBER({})", name)), 10);
}

std::uint64_t VmCoreInfo::kernel_offset() const {
  return parse_number<std::uint64_t>(value("KERNELOFFSET"), 16).value_or(0);
}

std::optional<Paging> VmCoreInfo::kernel_paging() const {
  const auto tables = symbol("swapper_pg_dir");
  const auto base = number("phys_base");
  if (!tables || !base) {
    return std::nullopt;
  }
  const std::uint64_t root = *tables - kKernelMap + static_cast<std::uint64_t>(*base);
  const bool five_levels = number("pgtable_l5_enabled").value_or(0) != 0;
  return Paging{.cr0 = kCr0Paging,
                .cr3 = root,
                .cr4 = kCr4Pae | (five_levels ? kCr4FiveLevels : 0),
                .efer = kEferLongModeNoExecute};
}

std::optional<VmCoreInfo> find_vmcoreinfo(const GuestMemory& memory, std::optional<GuestRange> told, LookFor where) {
  Search search{memory};
  if (told && !search_at(memory, *told, search)) {
    return std::move(search).found();
  }
  search_page_starts(memory, search);
  if (!search.found_any() && where == LookFor::Everywhere) {
    search.begin_anew();
    search_everywhere(memory, search);
  }
  return std::move(search).found();
}

}  // namespace martlet
