#include "vmm/debug/symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::uint64_t kKernelHalf = 0xffff'8000'0000'0000;  // below are per-CPU offsets and absolute values
constexpr std::uint64_t kMaxSymbols = 4U << 20U;
constexpr std::uint64_t kMaxMap = 512U << 20U;
constexpr std::uint64_t kMaxDistance = 1U << 20U;  // no function is longer
constexpr std::uint64_t kMaxPadding = 4096;
constexpr int kMaxAliases = 64;

}  // namespace

void Symbols::add(std::uint64_t address, std::uint64_t size, std::string_view name) {
  if (address < kKernelHalf || name.empty() || entries_.size() >= kMaxSymbols ||
      names_.size() + name.size() > kMaxMap) {
    return;
  }
  entries_.push_back({.address = address,
                      .size = size,
                      .name = static_cast<std::uint32_t>(names_.size()),
                      .name_length = static_cast<std::uint32_t>(name.size())});
  names_ += name;
}

void Symbols::sort() { std::ranges::stable_sort(entries_, {}, &Entry::address); }

Symbols::Symbols(const ElfFile& vmlinux) : build_id_{vmlinux.build_id()} {
  const auto table = vmlinux.section(".symtab");
  const auto names = table ? vmlinux.section(table->linked) : std::nullopt;
  if (!names) {
    return;
  }
  for (std::size_t at = 0; at + sizeof(Elf64_Sym) <= table->bytes.size(); at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol;
    std::memcpy(&symbol, table->bytes.data() + at, sizeof symbol);
    const auto type = ELF64_ST_TYPE(symbol.st_info);
    const bool is_place = type == STT_FUNC || type == STT_OBJECT || type == STT_NOTYPE;
    if (is_place && symbol.st_shndx != SHN_UNDEF && symbol.st_name < names->bytes.size()) {
      const auto* const name = reinterpret_cast<const char*>(names->bytes.data()) + symbol.st_name;
      add(symbol.st_value, symbol.st_size, {name, ::strnlen(name, names->bytes.size() - symbol.st_name)});
    }
  }
  sort();
}

Symbols Symbols::parse_map(std::string_view text) {
  Symbols symbols;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    std::uint64_t address = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), address, 16);
    const auto rest = line.substr(static_cast<std::size_t>(end - line.data()));  // " T _text"
    if (error == std::errc{} && rest.size() > 3 && rest[0] == ' ' && rest[2] == ' ') {
      symbols.add(address, 0, rest.substr(3, rest.find_first_of(" \t\r", 3) - 3));
    }
  }
  symbols.sort();
  return symbols;
}

Symbols Symbols::load(const std::string& path) {
  if (ElfFile::is_elf(path)) {
    Symbols symbols{ElfFile{path}};
    if (symbols.empty()) {
      throw HostError{
          fmt::format("{} has no symbols (it was stripped); give the System.map, or a vmlinux from a build "
                      "or a debug package",
                      path)};
    }
    return symbols;
  }
  const auto fd = open_file(path, O_RDONLY);
  struct stat status {};
  check(::fstat(fd.get(), &status), path);
  std::string text(std::min<std::uint64_t>(static_cast<std::uint64_t>(status.st_size), kMaxMap), '\0');
  read_exactly(fd.get(), std::as_writable_bytes(std::span{text}), 0, path);
  auto symbols = parse_map(text);
  if (symbols.empty()) {
    throw HostError{fmt::format("{} holds no kernel symbols; expected a System.map or a vmlinux", path)};
  }
  return symbols;
}

std::optional<Symbols::Place> Symbols::find(std::uint64_t address) const {
  const std::uint64_t linked = address - offset_;
  const auto above = std::ranges::upper_bound(entries_, linked, {}, &Entry::address);
  if (above == entries_.begin()) {
    return std::nullopt;
  }
  auto best = above - 1;  // of those at the same place: the largest by its own word, and of these the first
  const std::uint64_t nearest = best->address;
  auto alias = best;
  for (int i = 0; i < kMaxAliases && alias != entries_.begin() && (alias - 1)->address == nearest; ++i) {
    --alias;
    best = alias->size >= best->size ? alias : best;
  }
  // Linux counts what is between a function and the next to it.
  std::uint64_t size = above != entries_.end() ? above->address - nearest : best->size;
  if (best->size != 0 && size - best->size > kMaxPadding) {
    size = best->size;
  }
  if (linked - nearest >= std::max(size, std::uint64_t{1}) && linked - nearest > kMaxDistance) {
    return std::nullopt;
  }
  return Place{.name = name_of(*best), .offset = linked - nearest, .size = size};
}

std::optional<std::uint64_t> Symbols::address_of(std::string_view name) const {
  const auto found = std::ranges::find_if(entries_, [&](const Entry& entry) { return name_of(entry) == name; });
  return found == entries_.end() ? std::nullopt : std::optional{found->address + offset_};
}

std::string Symbols::describe(std::uint64_t address) const {
  const auto place = find(address);
  if (!place) {
    return fmt::format("{:#x}", address);
  }
  return fmt::format("{}+{:#x}/{:#x}", place->name, place->offset, place->size);
}

}  // namespace martlet
