#include "tests/support/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "vmm/base/fd.h"

namespace martlet::test {
namespace {

/// Words of 64 bits behind each other, as QEMU's note has them behind its version and size.
class Words {
 public:
  explicit Words(std::span<const std::byte> bytes) : bytes_{bytes} {}
  std::uint64_t next() {
    std::uint64_t word = 0;
    if (bytes_.size() < sizeof word) {
      throw std::runtime_error{"a QEMU note that is too short"};
    }
    std::memcpy(&word, bytes_.data(), sizeof word);
    bytes_ = bytes_.subspan(sizeof word);
    return word;
  }
  void next_segment(kvm_segment& segment) {
    const auto selector_and_limit = next();
    segment.selector = static_cast<std::uint16_t>(selector_and_limit);
    segment.limit = static_cast<std::uint32_t>(selector_and_limit >> 32U);
    const auto flags = next();
    segment.type = flags >> 8U & 15U;
    segment.s = flags >> 12U & 1U;
    segment.dpl = flags >> 13U & 3U;
    segment.present = flags >> 15U & 1U;
    segment.avl = flags >> 20U & 1U;
    segment.l = flags >> 21U & 1U;
    segment.db = flags >> 22U & 1U;
    segment.g = flags >> 23U & 1U;
    segment.base = next();
  }

 private:
  std::span<const std::byte> bytes_;
};

CpuState cpu_state(std::span<const std::byte> note) {
  Words words{note.subspan(8)};
  CpuState cpu;
  auto& r = cpu.regs;
  for (auto* reg : {&r.rax, &r.rbx, &r.rcx, &r.rdx, &r.rsi, &r.rdi, &r.rsp, &r.rbp, &r.r8, &r.r9, &r.r10, &r.r11,
                    &r.r12, &r.r13, &r.r14, &r.r15, &r.rip, &r.rflags}) {
    *reg = words.next();
  }
  auto& s = cpu.sregs;
  for (auto* segment : {&s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss, &s.ldt, &s.tr}) {
    words.next_segment(*segment);
  }
  for (auto* table : {&s.gdt, &s.idt}) {
    kvm_segment segment{};
    words.next_segment(segment);
    table->base = segment.base;
    table->limit = static_cast<std::uint16_t>(segment.limit);
  }
  s.cr0 = words.next();
  words.next();
  s.cr2 = words.next();
  s.cr3 = words.next();
  s.cr4 = words.next();
  cpu.kernel_gs_base = words.next();
  s.efer = s.cs.l != 0 || (s.cr4 & 0x20U) != 0 ? 0xd01 : 0;  // not in the note
  return cpu;
}

void read_notes(CoreFile& core, std::span<const std::byte> notes) {
  const auto padded = [](std::size_t size) { return (size + 3) / 4 * 4; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data(), sizeof header);
    const std::string name{reinterpret_cast<const char*>(notes.data() + sizeof header)};
    const auto content = notes.subspan(sizeof header + padded(header.n_namesz), header.n_descsz);
    if (name == "CORE" && header.n_type == NT_PRSTATUS) {
      std::uint32_t pid = 0;
      std::memcpy(&pid, content.data() + 32, sizeof pid);
      core.pids.push_back(pid);
    } else if (name == "QEMU") {
      core.cpus.push_back(cpu_state(content));
    } else if (name == "VMCOREINFO") {
      core.vmcoreinfo.assign(reinterpret_cast<const char*>(content.data()), content.size());
    }
    notes = notes.subspan(sizeof header + padded(header.n_namesz) + padded(header.n_descsz));
  }
}

/// The kernel's text and data are in the file once, and in its headers twice: at their physical addresses, as all of
/// RAM, and at those that the kernel runs at.
bool is_ram(const Elf64_Phdr& header, std::span<const Elf64_Phdr> all) {
  return header.p_type == PT_LOAD && std::ranges::none_of(all, [&](const Elf64_Phdr& other) {
           return other.p_type == PT_LOAD && other.p_memsz > header.p_memsz && other.p_paddr <= header.p_paddr &&
                  header.p_paddr + header.p_memsz <= other.p_paddr + other.p_memsz;
         });
}

}  // namespace

CoreFile read_core(const std::string& path) {
  const auto fd = open_file(path, O_RDONLY);
  Elf64_Ehdr elf{};
  read_exactly(fd.get(), std::as_writable_bytes(std::span{&elf, 1}), 0, path);
  if (std::memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_type != ET_CORE) {
    throw std::runtime_error{path + " is no ELF core"};
  }
  std::vector<Elf64_Phdr> headers(elf.e_phnum);
  read_exactly(fd.get(), std::as_writable_bytes(std::span{headers}), elf.e_phoff, path);
  CoreFile core;
  std::vector<GuestRange> ranges;
  for (const auto& header : headers) {
    if (header.p_type == PT_NOTE) {
      std::vector<std::byte> notes(header.p_filesz);
      read_exactly(fd.get(), notes, header.p_offset, path);
      read_notes(core, notes);
    } else if (is_ram(header, headers)) {
      ranges.push_back({GuestAddr{header.p_paddr}, header.p_memsz});
    }
  }
  core.memory = std::make_unique<GuestMemory>(ranges);
  for (const auto& header : headers) {
    for (std::uint64_t at = 0; is_ram(header, headers) && at < header.p_filesz;) {
      // Holes stay untouched.
      const auto offset = header.p_offset + at;
      const auto data = ::lseek(fd.get(), static_cast<off_t>(offset), SEEK_DATA);
      if (data < 0 || static_cast<std::uint64_t>(data) >= header.p_offset + header.p_filesz) {
        break;
      }
      at = std::max(at, static_cast<std::uint64_t>(data) - header.p_offset);
      const auto size = std::min<std::uint64_t>(header.p_filesz - at, 1U << 20U);
      const auto hole = ::lseek(fd.get(), static_cast<off_t>(header.p_offset + at), SEEK_HOLE);
      const auto length = hole < 0 ? size : std::min(size, static_cast<std::uint64_t>(hole) - (header.p_offset + at));
      const auto to = core.memory->slice(GuestAddr{header.p_paddr + at}, length);
      if (!to) {
        throw std::runtime_error{path + ": headers that overlap"};
      }
      read_exactly(fd.get(), *to, header.p_offset + at, path);
      at += length;
    }
  }
  return core;
}

}  // namespace martlet::test
