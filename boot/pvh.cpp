#include "boot/pvh.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

constexpr std::uint32_t kStartMagic = 0x336ec578;  // "xEn3", its E with the high bit set
constexpr std::uint32_t kVersionWithMemoryMap = 1;

struct StartInfo {
  std::uint32_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t flags = 0;
  std::uint32_t module_count = 0;
  std::uint64_t modules = 0;
  std::uint64_t command_line = 0;
  std::uint64_t rsdp = 0;
  std::uint64_t memory_map = 0;
  std::uint32_t memory_map_count = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct Module {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  std::uint64_t command_line = 0;
  std::uint64_t reserved = 0;
};
static_assert(sizeof(Module) == 32);

struct MapEntry {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  std::uint32_t type = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(MapEntry) == 24);

// One after the other in the page set aside for them.
constexpr GuestAddr kModuleAt = layout::kPvhStartInfo.start + sizeof(StartInfo);
constexpr GuestAddr kMapAt = kModuleAt + sizeof(Module);
constexpr std::size_t kMapRoom = (layout::kPvhStartInfo.end() - raw(kMapAt)) / sizeof(MapEntry);

}  // namespace

void write_pvh_start_info(const GuestMemory& memory, const BootInfo& info) {
  if (info.setup_data) {
    throw HostError{"a kernel entered by PVH cannot be given a device tree: boot its bzImage, or leave out --dtb"};
  }
  if (info.memory_map.size() > kMapRoom) {
    throw HostError{
        fmt::format("the memory map has {} entries, and PVH's page takes {}", info.memory_map.size(), kMapRoom)};
  }
  StartInfo start{.magic = kStartMagic,
                  .version = kVersionWithMemoryMap,
                  .command_line = raw(info.command_line.start),
                  .rsdp = info.rsdp ? raw(*info.rsdp) : 0,
                  .memory_map = raw(kMapAt),
                  .memory_map_count = static_cast<std::uint32_t>(info.memory_map.size())};
  Module module{};
  if (info.initrd) {
    module = {.start = raw(info.initrd->start), .size = info.initrd->size};
    start.module_count = 1;
    start.modules = raw(kModuleAt);
  }
  std::vector<MapEntry> map;
  map.reserve(info.memory_map.size());
  for (const auto& entry : info.memory_map) {
    map.push_back({raw(entry.range.start), entry.range.size, static_cast<std::uint32_t>(entry.type), 0});
  }
  if (!memory.write(layout::kPvhStartInfo.start, start) || !memory.write(kModuleAt, module) ||
      !memory.write(kMapAt, std::as_bytes(std::span{map}))) {
    throw HostError{"there is no RAM for PVH's start info: use -m 2M or more"};
  }
}

}  // namespace martlet
