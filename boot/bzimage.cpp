// Linux's bzImage and its 64-bit boot protocol: Documentation/arch/x86/boot.rst.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "boot/formats.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint16_t kBootFlag = 0xaa55;
constexpr std::uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr std::uint16_t kVersionWithXloadflags = 0x20c;
constexpr std::uint64_t kSectorSize = 512;
constexpr std::uint64_t kDefaultSetupSectors = 4;  // what setup_sects = 0 means
constexpr std::uint64_t kParagraph = 16;           // the unit of syssize
constexpr std::uint64_t kEntry64 = 0x200;          // from the load address
// The header ends where the jump over it lands: at 0x202 plus the displacement at 0x201.
constexpr std::size_t kHeaderStart = offsetof(boot_params, hdr);
constexpr std::size_t kJumpOrigin = kHeaderStart + offsetof(setup_header, header);
static_assert(kHeaderStart == 0x1f1 && kJumpOrigin == 0x202);
static_assert(sizeof(boot_params) == 4096);

/// The header as the kernel wrote it, zeros in fields that it is too old to know.
setup_header copy_header(const RegularFile& file, Probe start) {
  setup_header header{};
  std::memcpy(&header, &start[kHeaderStart], sizeof header);
  const std::size_t length = kJumpOrigin + (header.jump >> 8U) - kHeaderStart;
  if (length < offsetof(setup_header, handover_offset)) {
    refuse(file,
           fmt::format("is damaged: its setup header ends after {} bytes, before init_size; copy it again", length));
  }
  if (length < sizeof header) {
    std::memset(reinterpret_cast<std::byte*>(&header) + length, 0, sizeof header - length);
  }
  return header;
}

void check_bootable(const RegularFile& file, const setup_header& header) {
  if (header.version < kVersionWithXloadflags) {
    refuse(file, fmt::format("speaks boot protocol {}.{:02}, expected 2.12 or later: use Linux 3.8 or later, x86-64",
                             header.version >> 8U, header.version & 0xffU));
  }
  if ((header.xloadflags & XLF_KERNEL_64) == 0) {
    refuse(file, "is a 32-bit kernel; Martlet boots x86-64 kernels");
  }
  if ((header.loadflags & LOADED_HIGH) == 0) {
    refuse(file, "is a zImage, loaded below 1 MiB; Martlet boots bzImages");
  }
  if (header.pref_address < raw(layout::kHighMemory)) {
    refuse(file, fmt::format("is damaged: it wants to be loaded at {:#x}, below 1 MiB; copy it again",
                             std::uint64_t{header.pref_address}));
  }
}

}  // namespace

bool is_bzimage(Probe start) noexcept {
  setup_header header{};
  std::memcpy(&header, &start[kHeaderStart], sizeof header);
  return header.boot_flag == kBootFlag && header.header == kHeaderMagic;
}

LoadedKernel load_bzimage(const GuestMemory& memory, const RegularFile& file, Probe start) {
  if (file.size < start.size()) {
    refuse(file, fmt::format("is cut short: {} bytes do not hold a kernel's header; copy it again", file.size));
  }
  const auto header = copy_header(file, start);
  check_bootable(file, header);

  const std::uint64_t sectors = header.setup_sects == 0 ? kDefaultSetupSectors : header.setup_sects;
  const std::uint64_t offset = (sectors + 1) * kSectorSize;  // the boot sector, then setup
  const std::uint64_t promised = std::uint64_t{header.syssize} * kParagraph;
  // syssize counts whole paragraphs, so the last one may be partly there. What follows is a signature.
  if (promised == 0 || file.size < offset + promised - (kParagraph - 1)) {
    refuse(file, fmt::format("is cut short: its header promises {} bytes, the file holds {}; copy it again",
                             offset + promised, file.size));
  }
  const std::uint64_t size = std::min(promised, file.size - offset);

  // Nowhere else: a relocatable kernel loaded below pref_address moves itself up to it before it
  // unpacks itself, so a guest with less RAM cannot run it wherever we put it (boot.rst, pref_address).
  const GuestRange footprint{GuestAddr{header.pref_address}, std::max<std::uint64_t>(header.init_size, size)};
  require_low_ram(memory, file, footprint);
  read_exactly(file.fd.get(), memory.slice(footprint.start, size).value(), offset, file.path);

  const bool initrd_anywhere = (header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) != 0;
  return {.mode = EntryMode::Linux64,
          .entry = footprint.start + kEntry64,
          .footprint = footprint,
          .max_command_line = header.cmdline_size,
          .initrd_limit = initrd_anywhere ? layout::kAbove4G : GuestAddr{std::uint64_t{header.initrd_addr_max} + 1},
          .header = header};
}

}  // namespace martlet
