#pragma once

#include <string>

#include "devices/virtio/disk_options.h"

namespace martlet::virtio {

/// Keeps others from writing to the image while it is open here, and from opening it at all while it is
/// open for writing: as QEMU does, and in a way that QEMU understands. The lock lives as long as the open
/// file. Throws HostError that names the holder; a file system without locks is left unlocked.
void lock_image(int fd, const std::string& path, DiskAccess access);

}  // namespace martlet::virtio
