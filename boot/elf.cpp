// ELF64 kernels: Linux's vmlinux and bare-metal guests, entered through their PVH note when they have one.
#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "boot/formats.h"
#include "boot/placement.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::size_t kMaxProgramHeaders = 128;         // a vmlinux has five
constexpr std::uint64_t kMaxNotes = 64 * layout::kKiB;  // a vmlinux has 500 bytes of them
constexpr std::uint32_t kXenElfNotePhys32Entry = 18;    // Xen, public/elfnote.h
constexpr std::string_view kXenNoteName{"Xen\0", 4};
constexpr std::uint64_t kLinuxCommandLineSize = 2048;  // COMMAND_LINE_SIZE with its NUL; a vmlinux does not tell

/// What we put into low memory ourselves: a segment there would be overwritten, or read as RAM that is not.
struct NamedArea {
  GuestRange range;
  std::string_view name;
};
constexpr std::array kLowMemory{
    NamedArea{layout::kGdt, "boot GDT"},
    NamedArea{layout::kPvhStartInfo, "PVH start info"},
    NamedArea{layout::kZeroPage, "zero page"},
    NamedArea{layout::kPageTables, "boot page tables"},
    NamedArea{layout::kBootStack, "boot stack"},
    NamedArea{layout::kCommandLine, "command line"},
    NamedArea{layout::kEbda, "EBDA"},
    NamedArea{layout::kVgaHole, "VGA hole"},
    NamedArea{layout::kRsdp, "ACPI RSDP"},
    NamedArea{layout::kMpTable, "MP table"},
};

std::string machine_name(std::uint16_t machine) {
  switch (machine) {
    case EM_386:
      return "32-bit x86";
    case EM_AARCH64:
      return "arm64";
    case EM_ARM:
      return "32-bit Arm";
    case EM_RISCV:
      return "RISC-V";
    case EM_PPC64:
      return "POWER";
    case EM_S390:
      return "s390";
    case EM_MIPS:
      return "MIPS";
    case 258:
      return "LoongArch";  // EM_LOONGARCH, younger than Debian 12's elf.h
    default:
      return fmt::format("ELF machine {}", machine);
  }
}

void check_header(const RegularFile& file, const Elf64_Ehdr& header) {
  // The identification and e_machine lie at the same place in 32-bit and 64-bit files.
  if (file.size < offsetof(Elf64_Ehdr, e_version)) {
    refuse(file, fmt::format("is cut short: {} bytes do not hold an ELF header; copy it again", file.size));
  }
  if (header.e_ident[EI_DATA] != ELFDATA2LSB) {
    refuse(file, "is a big-endian ELF file; Martlet boots x86-64 kernels");
  }
  if (header.e_machine == EM_386 || (header.e_machine == EM_X86_64 && header.e_ident[EI_CLASS] != ELFCLASS64)) {
    refuse(file, "is a 32-bit kernel; Martlet boots x86-64 kernels");
  }
  if (header.e_machine != EM_X86_64) {
    refuse(file, fmt::format("is an ELF file for {}; Martlet boots x86-64 kernels", machine_name(header.e_machine)));
  }
  if (file.size < sizeof header) {
    refuse(file, fmt::format("is cut short: {} bytes do not hold an ELF header; copy it again", file.size));
  }
  if (header.e_type != ET_EXEC) {
    refuse(file,
           header.e_type == ET_REL
               ? "is an object file, not a linked kernel: link it first"
               : "is a shared library or a position-independent program, not a kernel: link it with -static -no-pie");
  }
  if (header.e_phnum == 0) {
    refuse(file, "has no program headers, so nothing to load: give the linked vmlinux");
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > kMaxProgramHeaders) {
    refuse(file, fmt::format("is damaged: {} program headers of {} bytes, expected at most {} of {}", header.e_phnum,
                             header.e_phentsize, kMaxProgramHeaders, sizeof(Elf64_Phdr)));
  }
}

/// True when `size` bytes at `offset` lie inside the file.
bool inside(const RegularFile& file, std::uint64_t offset, std::uint64_t size) {
  return offset <= file.size && size <= file.size - offset;
}

std::vector<Elf64_Phdr> read_program_headers(const RegularFile& file, const Elf64_Ehdr& header) {
  std::vector<Elf64_Phdr> headers(header.e_phnum);
  const auto bytes = std::as_writable_bytes(std::span{headers});
  if (!inside(file, header.e_phoff, bytes.size())) {
    refuse(file,
           fmt::format("is cut short: its program headers lie at {:#x} in the file, which ends at {:#x}; copy it again",
                       header.e_phoff, file.size));
  }
  read_exactly(file.fd.get(), bytes, header.e_phoff, file.path);
  return headers;
}

GuestRange range_of(const Elf64_Phdr& segment) { return {GuestAddr{segment.p_paddr}, segment.p_memsz}; }

std::string describe(const Elf64_Phdr& segment) {
  return fmt::format("its segment at {:#x} ({:#x} bytes)", segment.p_paddr, segment.p_memsz);
}

void check_segment(const GuestMemory& memory, const RegularFile& file, const Elf64_Phdr& segment) {
  if (segment.p_filesz > segment.p_memsz) {
    refuse(file, fmt::format("is damaged: {} holds {:#x} bytes in the file, more than in memory", describe(segment),
                             segment.p_filesz));
  }
  if (segment.p_filesz != 0 && !inside(file, segment.p_offset, segment.p_filesz)) {
    refuse(file, fmt::format("is cut short: {} lies at {:#x} in the file, which ends at {:#x}; copy it again",
                             describe(segment), segment.p_offset, file.size));
  }
  const auto range = range_of(segment);
  if (range.end() < range.size) {
    refuse(file, fmt::format("is damaged: {} wraps around the end of the address space", describe(segment)));
  }
  if (range.overlaps(layout::kMmioHole)) {
    refuse(file, fmt::format("cannot be loaded: {} lies in the device hole from {:#x} to {:#x}; link it below",
                             describe(segment), raw(layout::kMmioHole.start), layout::kMmioHole.end()));
  }
  for (const auto& area : kLowMemory) {
    if (range.overlaps(area.range)) {
      refuse(file, fmt::format("cannot be loaded: {} covers the {} at {:#x}; link it at 1 MiB or above",
                               describe(segment), area.name, raw(area.range.start)));
    }
  }
  require_low_ram(memory, file, range);
}

/// The PT_LOADs that take up memory, ascending, each checked and none over another.
std::vector<Elf64_Phdr> find_segments(const GuestMemory& memory, const RegularFile& file,
                                      const std::vector<Elf64_Phdr>& headers) {
  std::vector<Elf64_Phdr> segments;
  for (const auto& header : headers) {
    if (header.p_type == PT_INTERP) {
      refuse(file, "is a program that wants a dynamic linker, not a kernel");
    }
    if (header.p_type == PT_LOAD && header.p_memsz != 0) {
      check_segment(memory, file, header);
      segments.push_back(header);
    }
  }
  if (segments.empty()) {
    refuse(file, "has no segment to load: give the linked vmlinux");
  }
  std::ranges::sort(segments, {}, &Elf64_Phdr::p_paddr);
  const auto overlap = std::ranges::adjacent_find(
      segments, [](const auto& low, const auto& high) { return range_of(low).overlaps(range_of(high)); });
  if (overlap != segments.end()) {
    refuse(file, fmt::format("is damaged: {} overlaps {}", describe(*overlap), describe(*std::next(overlap))));
  }
  return segments;
}

/// The PVH entry among `notes`. Each round takes at least a note's header off, so it ends.
std::optional<std::uint64_t> find_pvh_note(std::span<const std::byte> notes, std::uint64_t alignment) {
  Elf64_Nhdr note;
  while (notes.size() >= sizeof note) {
    std::memcpy(&note, notes.data(), sizeof note);
    const std::uint64_t descriptor = align_up(sizeof note + std::uint64_t{note.n_namesz}, alignment);
    const std::uint64_t end = descriptor + note.n_descsz;  // sums of 32-bit numbers: no overflow
    if (end > notes.size()) {
      return std::nullopt;
    }
    const std::string_view name{reinterpret_cast<const char*>(notes.data() + sizeof note), note.n_namesz};
    const bool pointer = note.n_descsz == sizeof(std::uint32_t) || note.n_descsz == sizeof(std::uint64_t);
    if (note.n_type == kXenElfNotePhys32Entry && name == kXenNoteName && pointer) {
      std::uint64_t entry = 0;
      std::memcpy(&entry, notes.data() + descriptor, note.n_descsz);
      return entry;
    }
    notes = notes.subspan(std::min<std::uint64_t>(align_up(end, alignment), notes.size()));
  }
  return std::nullopt;
}

std::optional<std::uint64_t> read_pvh_entry(const RegularFile& file, const std::vector<Elf64_Phdr>& headers) {
  for (const auto& header : headers) {
    if (header.p_type != PT_NOTE) {
      continue;
    }
    if (!inside(file, header.p_offset, header.p_filesz)) {
      refuse(file, fmt::format("is cut short: its notes lie at {:#x} in the file, which ends at {:#x}; copy it again",
                               header.p_offset, file.size));
    }
    std::vector<std::byte> notes(std::min(header.p_filesz, kMaxNotes));
    read_exactly(file.fd.get(), notes, header.p_offset, file.path);
    if (const auto entry = find_pvh_note(notes, header.p_align == 8 ? 8 : 4)) {
      return entry;
    }
  }
  return std::nullopt;
}

/// Where `entry` lies in guest-physical memory: Linux gives a physical address, other kernels a virtual one.
std::uint64_t physical_entry(const RegularFile& file, const std::vector<Elf64_Phdr>& segments, std::uint64_t entry) {
  for (const auto& segment : segments) {
    if (entry - segment.p_paddr < segment.p_memsz) {
      return entry;
    }
  }
  for (const auto& segment : segments) {
    if (entry - segment.p_vaddr < segment.p_memsz) {
      return segment.p_paddr + (entry - segment.p_vaddr);
    }
  }
  refuse(file, fmt::format("is damaged: its entry point {:#x} lies in none of its segments", entry));
}

}  // namespace

bool is_elf(Probe start) noexcept { return std::memcmp(start.data(), ELFMAG, SELFMAG) == 0; }

LoadedKernel load_elf(const GuestMemory& memory, const RegularFile& file, Probe start) {
  Elf64_Ehdr header;
  std::memcpy(&header, start.data(), sizeof header);
  check_header(file, header);
  const auto headers = read_program_headers(file, header);
  const auto segments = find_segments(memory, file, headers);
  const auto pvh_entry = read_pvh_entry(file, headers);
  const auto entry = physical_entry(file, segments, pvh_entry.value_or(header.e_entry));

  for (const auto& segment : segments) {
    // What the file does not fill is zero already: guest memory is fresh, and stays untouched.
    const auto bytes = memory.slice(GuestAddr{segment.p_paddr}, segment.p_filesz);
    read_exactly(file.fd.get(), bytes.value(), segment.p_offset, file.path);
  }
  const auto lowest = segments.front().p_paddr;
  return {.mode = pvh_entry ? EntryMode::Pvh : EntryMode::Linux64,
          .entry = GuestAddr{entry},
          .footprint = {GuestAddr{lowest}, range_of(segments.back()).end() - lowest},
          .max_command_line = kLinuxCommandLineSize - 1,
          .initrd_limit = layout::kAbove4G,
          .header = std::nullopt};
}

}  // namespace martlet
