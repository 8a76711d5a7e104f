#include "devices/virtio/disk_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet::virtio {

DiskOptions parse_disk(std::string_view text) {
  Options options{text, "--disk"};
  DiskOptions disk;
  disk.path = options.take_first("path").value_or("");
  disk.access = options.take_flag("readonly").value_or(false) ? DiskAccess::ReadOnly : DiskAccess::ReadWrite;
  disk.format = options.take_choice<DiskFormat>("format", {{"raw", DiskFormat::Raw}, {"qcow2", DiskFormat::Qcow2}})
                    .value_or(disk.format);
  disk.cache = options
                   .take_choice<DiskCache>("cache", {{"writeback", DiskCache::Writeback},
                                                     {"direct", DiskCache::Direct},
                                                     {"unsafe", DiskCache::Unsafe}})
                   .value_or(disk.cache);
  disk.serial = options.take("serial").value_or("");
  disk.overlay = options.take("overlay").value_or("");
  disk.queues =
      static_cast<std::uint16_t>(options.take_number("queues", {.min = 1, .max = kMaxDiskQueues}).value_or(1));
  disk.block_size =
      options.take_choice<std::uint32_t>("block_size", {{"512", 512}, {"4096", 4096}, {"4K", 4096}}).value_or(0);
  disk.limits = RateLimits::parse(options);
  options.finish();

  if (disk.path.empty()) {
    throw HostError{fmt::format("--disk {}: which image? Write it like --disk path=disk.img", text)};
  }
  if (disk.serial.size() > kSerialBytes ||
      !std::ranges::all_of(disk.serial, [](char c) { return c > ' ' && c <= '~'; })) {
    throw HostError{fmt::format("--disk serial: '{}' is not up to {} printable ASCII characters without spaces",
                                disk.serial, kSerialBytes)};
  }
  if (!disk.overlay.empty() && disk.access == DiskAccess::ReadOnly) {
    throw HostError{fmt::format("--disk {}: overlay= is for writing, readonly=on forbids it; choose one", disk.path)};
  }
  return disk;
}

void check_serials(std::span<const DiskOptions> disks) {
  for (auto disk = disks.begin(); disk != disks.end(); ++disk) {
    const auto same = std::find_if(disks.begin(), disk, [&](const DiskOptions& other) {
      return !disk->serial.empty() && other.serial == disk->serial;
    });
    if (same != disk) {
      throw HostError{fmt::format("--disk {} and --disk {} both have serial={}; give each its own", same->path,
                                  disk->path, disk->serial)};
    }
  }
}

}  // namespace martlet::virtio
