#include "vmm/debug/elf_file.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/base/error.h"

namespace martlet {
namespace {

template <class T>
std::optional<T> read_at(std::span<const std::byte> bytes, std::uint64_t offset) {
  if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) {
    return std::nullopt;
  }
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

ElfFile::ElfFile(const std::string& path) {
  const auto fd = open_file(path, O_RDONLY);
  struct stat status {};
  check(::fstat(fd.get(), &status), path);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size >= sizeof(Elf64_Ehdr)) {
    void* const mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (mapped == MAP_FAILED) {
      fail_errno(errno, fmt::format("cannot map {}", path));
    }
    file_ = {static_cast<const std::byte*>(mapped), size};
  }
  const auto header = read_at<Elf64_Ehdr>(file_, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
      header->e_ident[EI_DATA] != ELFDATA2LSB || header->e_shentsize != sizeof(Elf64_Shdr)) {
    ::munmap(const_cast<std::byte*>(file_.data()), file_.size());
    throw HostError{fmt::format("{} is no 64-bit ELF file with sections; expected a kernel's vmlinux", path)};
  }
  table_ = header->e_shoff;
  count_ = header->e_shnum;
  names_ = header->e_shstrndx;
}

ElfFile::~ElfFile() { ::munmap(const_cast<std::byte*>(file_.data()), file_.size()); }

bool ElfFile::is_elf(const std::string& path) {
  const auto fd = open_file(path, O_RDONLY);
  std::array<char, SELFMAG> magic{};
  return ::pread(fd.get(), magic.data(), magic.size(), 0) == SELFMAG && std::memcmp(magic.data(), ELFMAG, SELFMAG) == 0;
}

std::optional<std::span<const std::byte>> ElfFile::slice(std::uint64_t offset, std::uint64_t size) const {
  if (offset > file_.size() || size > file_.size() - offset) {
    return std::nullopt;
  }
  return file_.subspan(offset, size);
}

std::optional<ElfFile::Section> ElfFile::section(std::uint32_t number) const {
  const auto header = number < count_ && table_ <= file_.size()
                          ? read_at<Elf64_Shdr>(file_, table_ + std::uint64_t{number} * sizeof(Elf64_Shdr))
                          : std::nullopt;
  const auto bytes = header && header->sh_type != SHT_NOBITS ? slice(header->sh_offset, header->sh_size) : std::nullopt;
  return bytes ? std::optional{Section{.address = header->sh_addr, .linked = header->sh_link, .bytes = *bytes}}
               : std::nullopt;
}

std::optional<ElfFile::Section> ElfFile::section(std::string_view name) const {
  const auto names = section(names_);
  for (std::uint32_t i = 0; names && i < count_; ++i) {
    const auto header = read_at<Elf64_Shdr>(file_, table_ + std::uint64_t{i} * sizeof(Elf64_Shdr));
    if (header && header->sh_name < names->bytes.size()) {
      const auto* const begin = reinterpret_cast<const char*>(names->bytes.data()) + header->sh_name;
      if (name == std::string_view{begin, ::strnlen(begin, names->bytes.size() - header->sh_name)}) {
        return section(i);
      }
    }
  }
  return std::nullopt;
}

std::string ElfFile::build_id() const {
  const auto notes = section(".notes");  // a vmlinux' own name for all of them
  const auto bytes = notes ? notes->bytes : std::span<const std::byte>{};
  for (std::uint64_t at = 0; const auto header = read_at<Elf64_Nhdr>(bytes, at);) {
    const std::uint64_t content = at + sizeof *header + (std::uint64_t{header->n_namesz} + 3) / 4 * 4;
    if (content > bytes.size() || header->n_descsz > bytes.size() - content) {
      break;
    }
    if (header->n_type == NT_GNU_BUILD_ID && header->n_namesz == sizeof ELF_NOTE_GNU &&
        std::memcmp(bytes.data() + at + sizeof *header, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0) {
      std::string id;
      for (const auto byte : bytes.subspan(content, header->n_descsz)) {
        id += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
      }
      return id;
    }
    at = content + (std::uint64_t{header->n_descsz} + 3) / 4 * 4;
  }
  return {};
}

}  // namespace martlet
