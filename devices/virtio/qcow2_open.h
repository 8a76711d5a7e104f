#pragma once

#include <memory>
#include <string_view>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_file.h"
#include "devices/virtio/disk_options.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// Opens, checks and locks a qcow2 image and its backing file. Throws HostError: one line.
[[nodiscard]] std::unique_ptr<Disk> open_qcow2(EventLoop& loop, const DiskOptions& options);

/// Nobody gets a format by accident: neither does a raw disk turn qcow2 because its guest wrote those bytes, nor
/// does a guest see a qcow2 file's insides as its disk. Throws HostError when `format` is unsaid and the file looks
/// like qcow2; `key` is the option that says it.
void check_looks_raw(const DiskFile& file, DiskFormat format, std::string_view key);

}  // namespace martlet::virtio
