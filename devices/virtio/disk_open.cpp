#include "devices/virtio/disk_open.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <string_view>
#include <utility>

#include "devices/virtio/disk_file.h"
#include "devices/virtio/disk_overlay.h"
#include "devices/virtio/disk_raw.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

/// Nobody gets a format by accident: neither does a raw disk turn qcow2 because its guest wrote those bytes,
/// nor does a guest see a qcow2 file's insides as its disk.
void check_format(const DiskFile& file, DiskFormat format) {
  if (format == DiskFormat::Qcow2) {
    throw HostError{
        fmt::format("disk {}: format=qcow2 is not supported; convert it with: qemu-img convert -O raw {} "
                    "{}.raw (overlay=FILE keeps writes apart, as a backing file does)",
                    file.path(), file.path(), file.path())};
  }
  constexpr std::string_view kQcow2Magic{"QFI\xfb"};
  std::array<char, kQcow2Magic.size()> magic{};
  if (format == DiskFormat::Unsaid &&
      ::pread(file.buffered(), magic.data(), magic.size(), 0) == ssize_t{magic.size()} &&
      std::string_view{magic.data(), magic.size()} == kQcow2Magic) {
    throw HostError{
        fmt::format("disk {}: looks like qcow2, which is not supported; convert it with: qemu-img convert "
                    "-O raw {} {}.raw (format=raw if these bytes are meant)",
                    file.path(), file.path(), file.path())};
  }
}

}  // namespace

std::unique_ptr<Disk> open_disk(EventLoop& loop, const DiskOptions& options) {
  const bool overlay = !options.overlay.empty();
  DiskFile file{
      {.path = options.path, .access = overlay ? DiskAccess::ReadOnly : options.access, .cache = options.cache}};
  check_format(file, options.format);
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
