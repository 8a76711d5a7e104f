#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/debug/elf_file.h"

namespace martlet {

/// A kernel's symbols, by address and by name.
class Symbols {
 public:
  struct Place {
    std::string_view name;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;  ///< up to the next symbol, as Linux counts; 0 when it is the last
  };

  Symbols() = default;
  /// From a vmlinux' .symtab; empty when it was stripped.
  explicit Symbols(const ElfFile& vmlinux);
  /// From a vmlinux or a System.map. Throws HostError when the file cannot be read, or is neither, or holds none.
  [[nodiscard]] static Symbols load(const std::string& path);
  /// From a System.map's text: lines of "ffffffff81000000 T _text". What is not such a line is left out.
  [[nodiscard]] static Symbols parse_map(std::string_view text);

  /// In any order; then sort() once.
  void add(std::uint64_t address, std::uint64_t size, std::string_view name);
  void sort();

  /// The running kernel is at its linked addresses plus `offset` (KASLR): all that follows speaks of the running one.
  void set_offset(std::uint64_t offset) noexcept { offset_ = offset; }

  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] const std::string& build_id() const noexcept { return build_id_; }

  /// The symbol at or before `address`; nothing before the first, and beyond the kernel's last.
  [[nodiscard]] std::optional<Place> find(std::uint64_t address) const;
  /// The lowest address of `name`.
  [[nodiscard]] std::optional<std::uint64_t> address_of(std::string_view name) const;
  /// "do_idle+0x1f/0x2a0", as Linux writes it; else the bare address, "0xffffffffc0123456".
  [[nodiscard]] std::string describe(std::uint64_t address) const;

 private:
  struct Entry {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
    std::uint32_t name = 0;  // where in names_
    std::uint32_t name_length = 0;
  };
  [[nodiscard]] std::string_view name_of(const Entry& entry) const {
    return std::string_view{names_}.substr(entry.name, entry.name_length);
  }

  std::vector<Entry> entries_;  // ascending by address
  std::string names_;
  std::string build_id_;
  std::uint64_t offset_ = 0;
};

}  // namespace martlet
