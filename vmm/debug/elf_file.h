#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/base/fd.h"

namespace martlet {

/// The sections of a 64-bit little-endian ELF file, mapped read-only.
class ElfFile {
 public:
  struct Section {
    std::uint64_t address = 0;
    std::uint32_t linked = 0;  ///< the section that this one refers to: a symbol table's names
    std::span<const std::byte> bytes;
  };

  /// Throws HostError when the file cannot be read or is no such ELF file.
  explicit ElfFile(const std::string& path);
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;
  ~ElfFile();

  /// True when `path` begins as an ELF file does. Throws HostError when it cannot be read.
  [[nodiscard]] static bool is_elf(const std::string& path);

  /// Nothing when there is none, or its bytes are not in the file.
  [[nodiscard]] std::optional<Section> section(std::string_view name) const;
  [[nodiscard]] std::optional<Section> section(std::uint32_t number) const;

  /// In hexadecimal, "" when there is none.
  [[nodiscard]] std::string build_id() const;

 private:
  [[nodiscard]] std::optional<std::span<const std::byte>> slice(std::uint64_t offset, std::uint64_t size) const;

  std::span<const std::byte> file_;
  std::uint64_t table_ = 0;  // the section headers' offset
  std::uint32_t count_ = 0;
  std::uint32_t names_ = 0;  // the section of the sections' names
};

}  // namespace martlet
