#include "boot/boot_params.h"

#include <fmt/format.h>

#include <iterator>

#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint8_t kUnregisteredLoader = 0xff;
static_assert(sizeof(boot_params) == layout::kZeroPage.size);
static_assert(sizeof(boot_e820_entry) == 20);

/// What a bzImage's header would have said, for a vmlinux: its entry code and setup_arch() read some of it.
setup_header plain_header() {
  setup_header header{};
  header.boot_flag = 0xaa55;
  header.header = 0x53726448;  // "HdrS"
  header.version = 0x20f;      // old kernels follow setup_data only from 2.09 on
  header.loadflags = LOADED_HIGH;
  header.kernel_alignment = 2 * layout::kMiB;
  return header;
}

constexpr std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
constexpr std::uint32_t high(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32U); }

}  // namespace

void write_boot_params(const GuestMemory& memory, const LoadedKernel& kernel, const BootInfo& info) {
  boot_params params{};  // sentinel 0: every field that we leave alone is a true zero
  params.hdr = kernel.header.value_or(plain_header());
  params.hdr.type_of_loader = kUnregisteredLoader;
  params.hdr.cmd_line_ptr = low(raw(info.command_line.start));
  params.ext_cmd_line_ptr = high(raw(info.command_line.start));
  if (info.initrd) {
    params.hdr.ramdisk_image = low(raw(info.initrd->start));
    params.ext_ramdisk_image = high(raw(info.initrd->start));
    params.hdr.ramdisk_size = low(info.initrd->size);
    params.ext_ramdisk_size = high(info.initrd->size);
  }
  params.acpi_rsdp_addr = info.rsdp ? raw(*info.rsdp) : 0;
  params.hdr.setup_data = info.setup_data ? raw(*info.setup_data) : 0;

  if (info.memory_map.size() > std::size(params.e820_table)) {
    throw HostError{fmt::format("the memory map has {} entries, and the zero page takes {}", info.memory_map.size(),
                                std::size(params.e820_table))};
  }
  for (const auto& entry : info.memory_map) {
    params.e820_table[params.e820_entries++] = {raw(entry.range.start), entry.range.size,
                                                static_cast<std::uint32_t>(entry.type)};
  }
  if (!memory.write(layout::kZeroPage.start, params)) {
    throw HostError{"there is no RAM for the zero page: use -m 2M or more"};
  }
}

}  // namespace martlet
