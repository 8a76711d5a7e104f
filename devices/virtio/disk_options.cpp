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
  const auto take_format = [&](std::string_view key) {
    return options.take_choice<DiskFormat>(key, {{"raw", DiskFormat::Raw}, {"qcow2", DiskFormat::Qcow2}})
        .value_or(DiskFormat::Unsaid);
  };
  disk.format = take_format("format");
  disk.backing = options.take("backing").value_or("");
  disk.backing_format = take_format("backing_format");
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
  if (!disk.backing.empty() && disk.format != DiskFormat::Qcow2) {
    throw HostError{
        fmt::format("--disk {}: backing= is for qcow2 images; add format=qcow2 if it is one, or for a raw "
                    "image that is only read name it first, with overlay=FILE",
                    disk.path)};
  }
  if (disk.backing.empty() && disk.backing_format != DiskFormat::Unsaid) {
    throw HostError{fmt::format("--disk {}: backing_format= tells how backing= is read; add backing=FILE", disk.path)};
  }
  if (!disk.overlay.empty() && disk.format == DiskFormat::Qcow2) {
    throw HostError{
        fmt::format("--disk {}: overlay= is for raw images; to keep a qcow2 image as it is, make another one on top "
                    "with: qemu-img create -f qcow2 -F qcow2 -b {} top.qcow2, then --disk "
                    "path=top.qcow2,format=qcow2,backing={},backing_format=qcow2",
                    disk.path, disk.path, disk.path)};
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
