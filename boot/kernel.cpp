#include "boot/kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "boot/formats.h"
#include "boot/placement.h"
#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

using namespace std::literals;

/// What people try to boot by mistake, by the bytes it is known by.
struct Stranger {
  std::size_t offset;
  std::string_view magic;
  std::string_view name;
};
constexpr std::array kCompressed{
    Stranger{0, "\x1f\x8b"sv, "gzip"},
    Stranger{0, "\xfd\x37zXZ\0"sv, "xz"},
    Stranger{0, "\x28\xb5\x2f\xfd"sv, "zstd"},
    Stranger{0, "BZh"sv, "bzip2"},
    Stranger{0, "\x04\x22\x4d\x18"sv, "lz4"},
    Stranger{0, "\x02\x21\x4c\x18"sv, "lz4"},  // its legacy format, which kernels use
    Stranger{0, "\x89LZO\0\r\n\x1a\n"sv, "lzop"},
};
constexpr std::array kForeign{
    Stranger{0x38, "ARMd"sv, "arm64"},      // Documentation/arch/arm64/booting.rst
    Stranger{0x38, "RSC\x05"sv, "RISC-V"},  // Documentation/arch/riscv/boot-image-header.rst
    Stranger{0x24, "\x18\x28\x6f\x01"sv, "32-bit Arm"},
    Stranger{0x04, "zimg"sv, "arm64, RISC-V or LoongArch (EFI zboot)"},  // drivers/firmware/efi/libstub/zboot-header.S
};

template <std::size_t N>
const Stranger* recognise(const std::array<Stranger, N>& strangers, Probe start) {
  const auto found = std::ranges::find_if(strangers, [&](const Stranger& stranger) {
    return std::memcmp(&start[stranger.offset], stranger.magic.data(), stranger.magic.size()) == 0;
  });
  return found == strangers.end() ? nullptr : &*found;
}

bool begins_with(Probe start, std::string_view magic) {
  return std::memcmp(start.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

void refuse(const RegularFile& file, std::string_view complaint) {
  throw HostError{fmt::format("{} {}", file.path, complaint)};
}

void require_low_ram(const GuestMemory& memory, const RegularFile& file, const GuestRange& footprint) {
  // Above the kernel come at least the ACPI tables; an initrd will say itself how much more it needs.
  constexpr std::uint64_t kSpare = layout::kMiB;
  constexpr std::uint64_t kHole = raw(layout::kMmioHole.start);
  const auto end = footprint.end();
  const bool wraps = end < footprint.size;
  if (wraps || end > kHole - kSpare) {
    refuse(file, fmt::format("asks for {:#x} bytes of RAM at {:#x}, but RAM for kernels ends at {:#x}: link it lower",
                             footprint.size, raw(footprint.start), kHole - kSpare));
  }
  if (!memory.slice(footprint.start, footprint.size)) {
    refuse(file, fmt::format("needs RAM from {:#x} to {:#x}, more than the guest's {} MiB: use -m {}M or more",
                             raw(footprint.start), end, memory.size() / layout::kMiB,
                             (align_up(end, layout::kMiB) + kSpare) / layout::kMiB));
  }
}

LoadedKernel load_kernel(const GuestMemory& memory, const std::string& path) {
  const auto file = open_regular(path, "a Linux kernel (bzImage or ELF vmlinux)");
  std::array<std::byte, kProbeSize> start{};
  const auto known = static_cast<std::size_t>(std::min<std::uint64_t>(file.size, start.size()));
  read_exactly(file.fd.get(), std::span{start}.first(known), 0, path);

  if (is_elf(start)) {
    return load_elf(memory, file, start);
  }
  if (is_bzimage(start)) {
    return load_bzimage(memory, file, start);
  }
  if (const auto* packed = recognise(kCompressed, start)) {
    refuse(file, fmt::format("is compressed with {0}; unpack it first: {0} -dc {1} > vmlinux", packed->name, path));
  }
  if (const auto* foreign = recognise(kForeign, start)) {
    refuse(file, fmt::format("is a kernel for {}; Martlet boots x86-64 kernels", foreign->name));
  }
  if (begins_with(start, "070701")) {
    refuse(file, "is a cpio archive, not a kernel; give it as the initrd with -i");
  }
  if (begins_with(start, "MZ") && file.size < kProbeSize) {
    refuse(file, fmt::format("is cut short: {} bytes do not hold a kernel's header; copy it again", file.size));
  }
  refuse(file, "is not a Linux kernel: it begins neither as a bzImage nor as an ELF file");
}

}  // namespace martlet
