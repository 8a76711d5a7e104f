#include "devices/virtio/disk_open.h"

#include <fmt/format.h>

#include <utility>

#include "devices/virtio/disk_file.h"
#include "devices/virtio/disk_overlay.h"
#include "devices/virtio/disk_raw.h"
#include "devices/virtio/qcow2_open.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
std::unique_ptr<Disk> open_disk(EventLoop& loop, const DiskOptions& options) {
  if (options.format == DiskFormat::Qcow2) {
    return open_qcow2(loop, options);
  }
  const bool overlay = !options.overlay.empty();
  DiskFile file{{.path = options.path,
                 .access = overlay ? DiskAccess::ReadOnly : options.access,
                 .cache = options.cache,
                 .grain = DiskFile::Grain::Any}};
  check_looks_raw(file, options.format, "format");
  file.check_sectors();
  const auto block = options.block_size;
  if (block != 0 && file.shape().size % block != 0) {
    throw HostError{
        fmt::format("disk {}: {} bytes are no whole number of {}-byte blocks; use block_size=512, or round "
                    "it up with: truncate -s %{} {}",
                    options.path, file.shape().size, block, block, options.path)};
  }
  if (overlay) {
    return std::make_unique<OverlayDisk>(loop, std::move(file), options.overlay, options.cache);
  }
  return std::make_unique<RawDisk>(loop, std::move(file), options.cache);
}

}  // namespace martlet::virtio
