#include "devices/virtio/image_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/virtio/disk_raw.h"

namespace martlet::virtio {
namespace {

class HostFile final : public ImageFile {
 public:
  HostFile(EventLoop& loop, DiskFile file, DiskCache cache)
      : name_{file.path()},
        fd_{duplicate(file.buffered())},
        size_{file.shape().size},
        growth_{file.is_device() ? Growth::None : Growth::Zeroes},
        disk_{loop, std::move(file), cache} {}

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] Growth growth() const noexcept override { return growth_; }

  int grow(std::uint64_t size) noexcept override {
    if (growth_ == Growth::None) {
      return ENOSPC;
    }
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return errno;
    }
    size_ = size;
    return 0;
  }

  int read(std::span<std::byte> into, std::uint64_t offset) noexcept override {
    while (!into.empty()) {
      const auto count = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count < 0) {
        return errno;
      }
      if (count == 0) {
        std::ranges::fill(into, std::byte{0});
        return 0;
      }
      into = into.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return 0;
  }

  [[nodiscard]] Disk& disk() noexcept override { return disk_; }

 private:
  std::string name_;
  Fd fd_;
  std::uint64_t size_;
  Growth growth_;
  RawDisk disk_;
};

}  // namespace

std::unique_ptr<ImageFile> make_image_file(EventLoop& loop, DiskFile file, DiskCache cache) {
  return std::make_unique<HostFile>(loop, std::move(file), cache);
}

}  // namespace martlet::virtio
