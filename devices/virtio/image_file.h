#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_file.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// The file that an image of a format is in. Everything that changes its bytes goes through disk().
class ImageFile {
 public:
  ImageFile() = default;
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;
  virtual ~ImageFile() = default;

  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
  /// What lies beyond size() reads as zeroes once the file has grown over it.
  enum class Growth { Zeroes, None };
  [[nodiscard]] virtual Growth growth() const noexcept = 0;
  /// Makes it larger. An errno value, or 0.
  [[nodiscard]] virtual int grow(std::uint64_t size) noexcept = 0;
  /// Reads at once, zeroes beyond the end: for tables, which are cached. An errno value, or 0.
  [[nodiscard]] virtual int read(std::span<std::byte> into, std::uint64_t offset) noexcept = 0;
  /// For all the rest; its bytes are the file's.
  [[nodiscard]] virtual Disk& disk() noexcept = 0;
};

/// One on the host.
[[nodiscard]] std::unique_ptr<ImageFile> make_image_file(EventLoop& loop, DiskFile file, DiskCache cache);

}  // namespace martlet::virtio
