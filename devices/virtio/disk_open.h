#pragma once

#include <memory>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_options.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// Opens, checks and locks the image, and the overlay if there is to be one. Throws HostError: one line.
[[nodiscard]] std::unique_ptr<Disk> open_disk(EventLoop& loop, const DiskOptions& options);

}  // namespace martlet::virtio
