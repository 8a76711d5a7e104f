#pragma once

#include <elf.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace martlet {

/// Writes an ELF file of sections, and takes it away at the end.
class FakeVmlinux {
 public:
  FakeVmlinux() {
    const int fd = ::mkstemp(path.data());
    ::close(fd);
    add("", SHT_NULL, 0, {});
  }
  FakeVmlinux(const FakeVmlinux&) = delete;
  FakeVmlinux& operator=(const FakeVmlinux&) = delete;
  ~FakeVmlinux() { ::unlink(path.c_str()); }

  void add(const std::string& name, std::uint32_t type, std::uint64_t address, std::string bytes) {
    Elf64_Shdr header{};
    header.sh_name = static_cast<Elf64_Word>(names_.size());
    header.sh_type = type;
    header.sh_addr = address;
    header.sh_size = bytes.size();
    names_ += name + '\0';
    headers.push_back(header);
    contents_.push_back(std::move(bytes));
  }

  void add_symbol(const std::string& name, std::uint64_t address, std::uint64_t size, unsigned char type = STT_FUNC,
                  std::uint16_t section = 1) {
    Elf64_Sym symbol{};
    symbol.st_name = static_cast<Elf64_Word>(strings_.size());
    symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, type);
    symbol.st_shndx = section;
    symbol.st_value = address;
    symbol.st_size = size;
    strings_ += name + '\0';
    symbols_ += as_bytes(symbol);
  }

  void add_build_id(const std::string& id) {
    const Elf64_Nhdr other{.n_namesz = 5, .n_descsz = 3, .n_type = 77};
    const Elf64_Nhdr header{.n_namesz = 4, .n_descsz = static_cast<Elf64_Word>(id.size()), .n_type = NT_GNU_BUILD_ID};
    add(".notes", SHT_NOTE, 0,
        as_bytes(other) + std::string{"Xen!\0\0\0\0abc\0", 12} + as_bytes(header) + std::string{"GNU\0", 4} + id);
  }

  /// `lie` may change the section headers last.
  template <class F>
  const std::string& write(F&& lie) {
    if (!symbols_.empty()) {
      add(".symtab", SHT_SYMTAB, 0, symbols_);
      headers.back().sh_link = static_cast<Elf64_Word>(headers.size());
      add(".strtab", SHT_STRTAB, 0, strings_);
    }
    const auto own_name = names_.size();
    add(".shstrtab", SHT_STRTAB, 0, names_ + ".shstrtab");
    headers.back().sh_name = static_cast<Elf64_Word>(own_name);
    Elf64_Ehdr elf{};
    std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    elf.e_shentsize = sizeof(Elf64_Shdr);
    elf.e_shnum = static_cast<Elf64_Half>(headers.size());
    elf.e_shstrndx = static_cast<Elf64_Half>(headers.size() - 1);
    elf.e_shoff = sizeof elf;
    std::uint64_t offset = sizeof elf + headers.size() * sizeof(Elf64_Shdr);
    for (std::size_t i = 0; i < headers.size(); ++i) {
      headers[i].sh_offset = offset;
      offset += contents_[i].size();
    }
    lie(headers);
    std::ofstream file{path, std::ios::binary};
    file << as_bytes(elf);
    for (const auto& header : headers) {
      file << as_bytes(header);
    }
    for (const auto& content : contents_) {
      file << content;
    }
    return path;
  }
  const std::string& write() {
    return write([](auto&) {});
  }

  template <class T>
  static std::string as_bytes(const T& object) {
    return {reinterpret_cast<const char*>(&object), sizeof object};
  }

  std::string path = "/tmp/martlet-vmlinux.XXXXXX";
  std::vector<Elf64_Shdr> headers;

 private:
  std::vector<std::string> contents_;
  std::string names_;
  std::string symbols_;
  std::string strings_{'\0'};
};

}  // namespace martlet
