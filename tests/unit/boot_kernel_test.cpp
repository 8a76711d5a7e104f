#include <elf.h>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <functional>

#include "boot/kernel.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// --- A kernel image small enough to understand: one setup sector, 4096 bytes of payload.

constexpr std::size_t kHeaderAt = 0x1f1;
constexpr std::size_t kPayloadAt = 2 * 512;
constexpr std::size_t kPayloadSize = 4096;

setup_header valid_header() {
  setup_header header{};
  header.setup_sects = 1;
  header.syssize = kPayloadSize / 16;
  header.boot_flag = 0xaa55;
  header.jump = 0x6aeb;  // jmp over the rest of the header
  header.header = 0x53726448;
  header.version = 0x20f;
  header.loadflags = LOADED_HIGH;
  header.initrd_addr_max = 0x7fffffff;
  header.kernel_alignment = 0x200000;
  header.relocatable_kernel = 1;
  header.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
  header.cmdline_size = 2047;
  header.pref_address = 0x1000000;
  header.init_size = 0x2000000;
  return header;
}

Bytes bzimage(const setup_header& header = valid_header()) {
  Bytes image(kPayloadAt + kPayloadSize);
  std::fill(image.begin() + kPayloadAt, image.end(), std::byte{0x90});
  poke(image, kHeaderAt, header);
  return image;
}

Bytes bzimage_with(const std::function<void(setup_header&)>& change) {
  auto header = valid_header();
  change(header);
  return bzimage(header);
}

// --- An ELF kernel: two segments, notes between them in the file.

constexpr std::uint64_t kHeadersAt = sizeof(Elf64_Ehdr);
constexpr std::uint64_t kTextAt = 0x1000;
constexpr std::uint64_t kNoteAt = 0x2000;
constexpr std::uint64_t kTextSize = 0x800;

struct Elf {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  Bytes notes;

  Elf() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_phoff = kHeadersAt;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_entry = 0xffffffff80100040;
    segments.push_back({.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_X,
                        .p_offset = kTextAt,
                        .p_vaddr = 0xffffffff80100000,
                        .p_paddr = 0x100000,
                        .p_filesz = kTextSize,
                        .p_memsz = 0x1800,
                        .p_align = 0x1000});
    segments.push_back({.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_W,
                        .p_offset = kTextAt,
                        .p_vaddr = 0xffffffff80110000,
                        .p_paddr = 0x110000,
                        .p_filesz = 0,
                        .p_memsz = 0x1000,
                        .p_align = 0x1000});
  }
  Elf& add_note(std::string_view name, std::uint32_t type, std::span<const std::byte> descriptor) {
    const std::array words{static_cast<std::uint32_t>(name.size() + 1), static_cast<std::uint32_t>(descriptor.size()),
                           type};
    const auto put = [&](std::span<const std::byte> bytes) {
      notes.insert(notes.end(), bytes.begin(), bytes.end());
      notes.resize((notes.size() + 3) / 4 * 4);
    };
    put(std::as_bytes(std::span{words}));
    put(std::as_bytes(std::span{std::string{name}.c_str(), name.size() + 1}));
    put(descriptor);
    return *this;
  }
  template <class T>
  Elf& add_pvh_note(T entry) {
    return add_note("Xen", 18, std::as_bytes(std::span{&entry, 1}));
  }
  [[nodiscard]] Bytes bytes() const {
    auto all = segments;
    if (!notes.empty()) {
      all.push_back({.p_type = PT_NOTE, .p_offset = kNoteAt, .p_filesz = notes.size(), .p_align = 4});
    }
    auto head = header;
    head.e_phnum = head.e_phnum == 0 ? static_cast<Elf64_Half>(all.size()) : head.e_phnum;
    Bytes image(kNoteAt + notes.size());
    poke(image, 0, head);
    for (std::size_t i = 0; i < all.size(); ++i) {
      poke(image, kHeadersAt + i * sizeof(Elf64_Phdr), all[i]);
    }
    std::fill_n(image.begin() + kTextAt, kTextSize, std::byte{0xcc});
    std::ranges::copy(notes, image.begin() + kNoteAt);
    return image;
  }
};

class BootKernel : public testing::Test {
 protected:
  LoadedKernel load(const Bytes& image, std::uint64_t memory = 128 * kMiB) {
    guest_.emplace(make_guest(memory));
    return load_kernel(*guest_, dir_.write("kernel", image));
  }
  std::string refusal(const Bytes& image, std::uint64_t memory = 128 * kMiB) {
    const auto message = error_of([&] { static_cast<void>(load(image, memory)); });
    EXPECT_THAT(message, HasSubstr(dir_ / "kernel"));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
    return message;
  }
  FileDir dir_;
  std::optional<GuestMemory> guest_;
};

TEST_F(BootKernel, BzImageLiesWhereItWants) {
  const auto kernel = load(bzimage());
  EXPECT_EQ(kernel.mode, EntryMode::Linux64);
  EXPECT_EQ(kernel.entry, GuestAddr{0x1000200});
  EXPECT_EQ(kernel.footprint, (GuestRange{GuestAddr{0x1000000}, 0x2000000}));
  EXPECT_EQ(kernel.max_command_line, 2047U);
  EXPECT_EQ(kernel.initrd_limit, layout::kAbove4G);
  ASSERT_TRUE(kernel.header);
  EXPECT_EQ(std::memcmp(&*kernel.header, std::array{valid_header()}.data(), sizeof(setup_header)), 0);
  const auto payload = guest_->slice(GuestAddr{0x1000000}, kPayloadSize + 1).value();
  EXPECT_TRUE(std::ranges::all_of(payload.first(kPayloadSize), [](std::byte b) { return b == std::byte{0x90}; }));
  EXPECT_EQ(payload.back(), std::byte{0});
}

TEST_F(BootKernel, BzImageOldHeadersEndEarlier) {
  const auto image = bzimage_with([](setup_header& h) {
    h.jump = 0x62eb;  // to 0x264, as protocol 2.12 has it: what follows is code
    h.handover_offset = 0x12345678;
    h.kernel_info_offset = 0x12345678;
    h.version = 0x20c;
  });
  const auto kernel = load(image);
  EXPECT_EQ(std::uint32_t{kernel.header->init_size}, 0x2000000U);
  EXPECT_EQ(std::uint32_t{kernel.header->handover_offset}, 0U);
  EXPECT_EQ(std::uint32_t{kernel.header->kernel_info_offset}, 0U);
}

TEST_F(BootKernel, BzImageZeroSetupSectorsMeansFour) {
  auto image = bzimage_with([](setup_header& h) { h.setup_sects = 0; });
  image.resize(5 * 512 + kPayloadSize, std::byte{0x42});
  load(image);
  EXPECT_EQ(guest_->read<std::uint8_t>(GuestAddr{0x1000000 + kPayloadSize - 1}), 0x42);
}

TEST_F(BootKernel, BzImageSignatureBehindThePayloadStaysOut) {
  auto image = bzimage();
  image.resize(image.size() + 1472, std::byte{0xee});
  load(image);
  EXPECT_EQ(guest_->read<std::uint8_t>(GuestAddr{0x1000000 + kPayloadSize}), 0);
}

TEST_F(BootKernel, BzImageLowInitrdLimit) {
  const auto kernel = load(bzimage_with([](setup_header& h) { h.xloadflags = XLF_KERNEL_64; }));
  EXPECT_EQ(kernel.initrd_limit, GuestAddr{0x80000000});
}

TEST_F(BootKernel, BzImageCutShortAtEveryBoundary) {
  const auto image = bzimage();
  for (const std::size_t size : {1UL, 0x1f0UL, 0x1f1UL, 0x1feUL, 0x200UL, 0x202UL, 0x205UL}) {
    EXPECT_THAT(refusal({image.begin(), image.begin() + static_cast<long>(size)}), HasSubstr("is not a Linux kernel"))
        << size;
  }
  for (const std::size_t size : {0x206UL, 0x210UL, 0x260UL, 0x264UL, 0x26bUL}) {
    EXPECT_THAT(refusal({image.begin(), image.begin() + static_cast<long>(size)}),
                AllOf(HasSubstr("is cut short"), HasSubstr("do not hold a kernel's header")))
        << size;
  }
  for (const std::size_t size : {0x26cUL, 0x3ffUL, 0x400UL, 0x401UL, image.size() - 16}) {
    EXPECT_THAT(refusal({image.begin(), image.begin() + static_cast<long>(size)}),
                HasSubstr("is cut short: its header promises 5120 bytes, the file holds"))
        << size;
  }
}

TEST_F(BootKernel, EfiStubCutShortIsRecognised) {
  Bytes image(100);
  poke(image, 0, std::array{'M', 'Z'});
  EXPECT_THAT(refusal(image), HasSubstr("is cut short: 100 bytes do not hold a kernel's header"));
}

TEST_F(BootKernel, BzImagesThatAreRefused) {
  const struct {
    std::function<void(setup_header&)> change;
    const char* message;
  } cases[] = {
      {[](auto& h) { h.version = 0x20b; }, "speaks boot protocol 2.11, expected 2.12 or later"},
      {[](auto& h) { h.xloadflags = 0; }, "is a 32-bit kernel; Martlet boots x86-64 kernels"},
      {[](auto& h) { h.loadflags = 0; }, "is a zImage"},
      {[](auto& h) { h.jump = 0x10eb; }, "is damaged: its setup header ends after 33 bytes"},
      {[](auto& h) { h.pref_address = 0; }, "is damaged: it wants to be loaded at 0x0"},
      {[](auto& h) { h.syssize = 0; }, "is cut short"},
      {[](auto& h) { h.syssize = 0xffffffff; }, "is cut short"},
      {[](auto& h) { h.init_size = 0x8000000; },
       "needs RAM from 0x1000000 to 0x9000000, more than the guest's 128 MiB: use -m 145M or more"},
      {[](auto& h) { h.pref_address = 0xc0000000; }, "but RAM for kernels ends at 0xbff00000"},
      {[](auto& h) { h.pref_address = 0x100000000; }, "but RAM for kernels ends at"},
      {[](auto& h) { h.pref_address = ~0ULL; }, "but RAM for kernels ends at"},
  };
  for (const auto& [change, message] : cases) {
    EXPECT_THAT(refusal(bzimage_with(change)), HasSubstr(message));
  }
}

TEST_F(BootKernel, FilesThatAreNoKernel) {
  const auto guest = make_guest(16 * kMiB);
  const auto complaint = [&](const std::string& path) {
    return error_of([&] { static_cast<void>(load_kernel(guest, path)); });
  };
  EXPECT_THAT(complaint(dir_ / "absent"), AllOf(HasSubstr("cannot open"), HasSubstr("absent: No such file")));
  EXPECT_THAT(complaint(dir_.path()), HasSubstr("is a directory; expected a Linux kernel"));
  EXPECT_THAT(complaint(dir_.write("empty", "")), HasSubstr("is empty; expected a Linux kernel"));
  EXPECT_THAT(complaint("/dev/null"), HasSubstr("is not a regular file; expected a Linux kernel"));
  EXPECT_THAT(complaint(dir_.write("text", "#!/bin/sh\n")), HasSubstr("is not a Linux kernel"));
  EXPECT_THAT(complaint(dir_.write("cpio", "070701")), HasSubstr("give it as the initrd with -i"));
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(complaint(dir_ / "fifo"), HasSubstr("is not a regular file"));
}

TEST_F(BootKernel, CompressedKernelsAreNamedWithTheFix) {
  using namespace std::literals;
  const std::pair<std::string_view, std::string> cases[] = {
      {"\x1f\x8b\x08"sv, "gzip"},        {"\xfd\x37zXZ\0"sv, "xz"},
      {"\x28\xb5\x2f\xfd"sv, "zstd"},    {"BZh9"sv, "bzip2"},
      {"\x02\x21\x4c\x18"sv, "lz4"},     {"\x04\x22\x4d\x18"sv, "lz4"},
      {"\x89LZO\0\r\n\x1a\n"sv, "lzop"},
  };
  const auto guest = make_guest(16 * kMiB);
  for (const auto& [magic, tool] : cases) {
    const auto path = dir_.write("vmlinux.packed", magic);
    EXPECT_THAT(error_of([&] { static_cast<void>(load_kernel(guest, path)); }),
                HasSubstr(fmt::format("is compressed with {0}; unpack it first: {0} -dc {1} > vmlinux", tool, path)));
  }
}

TEST_F(BootKernel, ForeignKernelsAreNamed) {
  Bytes arm64(64 * kKiB);
  poke(arm64, 0, std::array{'M', 'Z'});
  poke(arm64, 0x38, std::array{'A', 'R', 'M', 'd'});
  EXPECT_THAT(refusal(arm64), HasSubstr("is a kernel for arm64; Martlet boots x86-64 kernels"));
  Bytes riscv(64 * kKiB);
  poke(riscv, 0x38, std::array{'R', 'S', 'C', '\x05'});
  EXPECT_THAT(refusal(riscv), HasSubstr("is a kernel for RISC-V"));
}

TEST_F(BootKernel, ElfSegmentsLieAtTheirPhysicalAddresses) {
  const auto kernel = load(Elf{}.bytes(), 2 * kMiB);
  EXPECT_EQ(kernel.mode, EntryMode::Linux64);
  EXPECT_EQ(kernel.entry, GuestAddr{0x100040});  // e_entry is virtual
  EXPECT_EQ(kernel.footprint, (GuestRange{GuestAddr{0x100000}, 0x11000}));
  EXPECT_EQ(kernel.max_command_line, 2047U);
  EXPECT_FALSE(kernel.header);
  EXPECT_EQ(guest_->read<std::uint8_t>(GuestAddr{0x100000 + kTextSize - 1}), 0xcc);
  EXPECT_EQ(guest_->read<std::uint8_t>(GuestAddr{0x100000 + kTextSize}), 0);
}

TEST_F(BootKernel, ElfPhysicalEntryIsTaken) {
  Elf elf;
  elf.header.e_entry = 0x100123;  // as Linux has it
  EXPECT_EQ(load(elf.bytes()).entry, GuestAddr{0x100123});
}

TEST_F(BootKernel, ElfPvhNoteWins) {
  Elf narrow;
  narrow.add_note("Linux", 257, {})
      .add_note("GNU", 18, std::as_bytes(std::span{"x"}))
      .add_pvh_note(std::uint32_t{0x100010});
  const auto kernel = load(narrow.bytes());
  EXPECT_EQ(kernel.mode, EntryMode::Pvh);
  EXPECT_EQ(kernel.entry, GuestAddr{0x100010});
  Elf wide;
  EXPECT_EQ(load(wide.add_pvh_note(std::uint64_t{0x100020}).bytes()).entry, GuestAddr{0x100020});
}

TEST_F(BootKernel, ElfPvhNoteIsFoundBehindEightByteAlignedOnes) {
  Elf elf;
  elf.add_pvh_note(std::uint64_t{0x100020});
  auto image = elf.bytes();
  // The same note, read with 8-byte alignment: 12 + 4 bytes are 16 either way.
  Elf64_Phdr note{.p_type = PT_NOTE, .p_offset = kNoteAt, .p_filesz = elf.notes.size(), .p_align = 8};
  poke(image, kHeadersAt + 2 * sizeof note, note);
  EXPECT_EQ(load(image).mode, EntryMode::Pvh);
}

TEST_F(BootKernel, MalformedNotesEndTheSearch) {
  for (const std::array<std::uint32_t, 3> words : {std::array<std::uint32_t, 3>{0xffffffff, 0xffffffff, 18},
                                                   {4, 0xffffffff, 18},
                                                   {0xfffffffd, 4, 18},
                                                   {4, 5, 18}}) {
    Elf elf;
    elf.notes.resize(sizeof words);
    std::memcpy(elf.notes.data(), words.data(), sizeof words);
    EXPECT_EQ(load(elf.bytes()).mode, EntryMode::Linux64);
  }
  Elf zeros;
  zeros.notes.resize(300'000);  // notes of twelve zero bytes, and more than we read
  EXPECT_EQ(load(zeros.bytes()).mode, EntryMode::Linux64);
  Elf odd;
  odd.add_note("Xen", 18, std::as_bytes(std::span{"12345"}));  // neither 4 nor 8 bytes
  EXPECT_EQ(load(odd.bytes()).mode, EntryMode::Linux64);
}

TEST_F(BootKernel, ElfCutShortAtEveryBoundary) {
  Elf elf;
  const auto image = elf.add_pvh_note(std::uint32_t{0x100010}).bytes();
  for (const std::size_t size : {4UL, 15UL, 18UL, 19UL, 20UL, 63UL, 64UL, 65UL, 119UL, 231UL, 232UL, 0x1000UL, 0x17ffUL,
                                 0x2000UL, image.size() - 1}) {
    EXPECT_THAT(refusal({image.begin(), image.begin() + static_cast<long>(size)}), HasSubstr("is cut short")) << size;
  }
}

TEST_F(BootKernel, ElfsThatAreRefused) {
  const struct {
    std::function<void(Elf&)> change;
    const char* message;
  } cases[] = {
      {[](Elf& e) { e.header.e_machine = EM_386; }, "is a 32-bit kernel; Martlet boots x86-64 kernels"},
      {[](Elf& e) { e.header.e_ident[EI_CLASS] = ELFCLASS32; }, "is a 32-bit kernel"},
      {[](Elf& e) { e.header.e_machine = EM_AARCH64; }, "is an ELF file for arm64; Martlet boots x86-64 kernels"},
      {[](Elf& e) { e.header.e_machine = EM_RISCV; }, "is an ELF file for RISC-V"},
      {[](Elf& e) { e.header.e_machine = 999; }, "is an ELF file for ELF machine 999"},
      {[](Elf& e) { e.header.e_ident[EI_DATA] = ELFDATA2MSB; }, "is a big-endian ELF file"},
      {[](Elf& e) { e.header.e_type = ET_REL; }, "is an object file"},
      {[](Elf& e) { e.header.e_type = ET_DYN; }, "is a shared library or a position-independent program"},
      {[](Elf& e) { e.header.e_phentsize = 32; }, "is damaged: 2 program headers of 32 bytes"},
      {[](Elf& e) { e.header.e_phnum = 0xffff; }, "is damaged: 65535 program headers"},
      {[](Elf& e) { e.header.e_phoff = ~0ULL; }, "is cut short: its program headers"},
      {[](Elf& e) { e.segments.clear(); }, "has no program headers"},
      {[](Elf& e) { e.segments[0].p_memsz = e.segments[1].p_memsz = 0; }, "has no segment to load"},
      {[](Elf& e) { e.segments[1].p_type = PT_INTERP; }, "wants a dynamic linker"},
      {[](Elf& e) { e.segments[0].p_filesz = 0x1801; },
       "is damaged: its segment at 0x100000 (0x1800 bytes) holds 0x1801"},
      {[](Elf& e) { e.segments[0].p_offset = ~0ULL; }, "is cut short: its segment at 0x100000"},
      {[](Elf& e) { e.segments[0].p_offset = 0x1ff0; }, "is cut short: its segment at 0x100000"},
      {[](Elf& e) { e.segments[1].p_paddr = 0x101000; },
       "is damaged: its segment at 0x100000 (0x1800 bytes) overlaps its segment at 0x101000"},
      {[](Elf& e) { e.segments[1].p_paddr = e.segments[0].p_paddr; }, "overlaps"},
      {[](Elf& e) { e.segments[1].p_paddr = ~0xfffULL; }, "wraps around the end of the address space"},
      {[](Elf& e) {
         e.segments[1].p_paddr = 0x100000;
         e.segments[1].p_memsz = ~0ULL;
       },
       "wraps around"},
      {[](Elf& e) { e.segments[1].p_paddr = 0xc0001000; }, "lies in the device hole"},
      {[](Elf& e) { e.segments[1].p_memsz = 0xc0000000; }, "lies in the device hole"},
      {[](Elf& e) { e.segments[1].p_paddr = 0x200000000; }, "but RAM for kernels ends at"},
      {[](Elf& e) { e.segments[1].p_paddr = 128 * kMiB; },
       "needs RAM from 0x8000000 to 0x8001000, more than the guest's 128 MiB: use -m 130M or more"},
      {[](Elf& e) { e.segments[1].p_paddr = 0x7000; }, "covers the zero page at 0x7000; link it at 1 MiB or above"},
      {[](Elf& e) {
         e.segments[1].p_paddr = 0x500;
         e.segments[1].p_memsz = 1;
       },
       "covers the boot GDT"},
      {[](Elf& e) { e.segments[1].p_paddr = 0x20000; }, "covers the command line"},
      {[](Elf& e) { e.segments[1].p_paddr = 0xff000; }, "covers the MP table"},
      {[](Elf& e) { e.header.e_entry = 0x90000000; },
       "is damaged: its entry point 0x90000000 lies in none of its segments"},
      {[](Elf& e) { e.add_pvh_note(std::uint32_t{0x90}); }, "is damaged: its entry point 0x90"},
  };
  for (const auto& [change, message] : cases) {
    Elf elf;
    change(elf);
    EXPECT_THAT(refusal(elf.bytes()), HasSubstr(message));
  }
}

TEST_F(BootKernel, ElfFreeLowMemoryMayBeUsed) {
  Elf elf;
  elf.segments[1].p_paddr = 0x40000;
  EXPECT_EQ(load(elf.bytes(), 2 * kMiB).footprint, (GuestRange{GuestAddr{0x40000}, 0xc1800}));
}

}  // namespace
}  // namespace martlet
