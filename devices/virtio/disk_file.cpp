#include "devices/virtio/disk_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "devices/virtio/block_wire.h"
#include "devices/virtio/disk_lock.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::uint32_t kPage = 4096;

std::optional<std::uint64_t> size_of(int fd, bool device) {
  if (device) {
    std::uint64_t size = 0;
    return ::ioctl(fd, BLKGETSIZE64, &size) == 0 ? std::optional{size} : std::nullopt;
  }
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? std::optional{static_cast<std::uint64_t>(status.st_size)} : std::nullopt;
}

Fd open_image(const std::string& path, DiskAccess access, bool device) {
  const bool writing = access == DiskAccess::ReadWrite;
  // O_EXCL keeps a block device that is mounted here from being written to; O_NONBLOCK, a FIFO from blocking.
  const int flags = (writing ? O_RDWR : O_RDONLY) | O_NONBLOCK | (writing && device ? O_EXCL : 0);
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd >= 0) {
    return Fd{fd};
  }
  if (errno == EBUSY) {
    throw HostError{
        fmt::format("disk {}: it is mounted or otherwise in use here; unmount it, or add readonly=on", path)};
  }
  if (writing && (errno == EACCES || errno == EROFS || errno == EPERM)) {
    const int error = errno;
    fail_errno(error, fmt::format("disk {}: cannot be opened for writing (readonly=on or overlay=tmp need not)", path));
  }
  fail_errno(errno, fmt::format("disk {}: cannot be opened", path));
}

}  // namespace

DiskFile::DiskFile(const Options& options) : path_{options.path} {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) {
    fail_errno(errno, fmt::format("disk {}", path_));
  }
  device_ = S_ISBLK(status.st_mode);
  if (!device_ && !S_ISREG(status.st_mode)) {
    throw HostError{fmt::format("disk {}: {}; it must be an image file or a block device", path_,
                                S_ISDIR(status.st_mode) ? "is a directory" : "is neither file nor block device")};
  }
  buffered_ = open_image(path_, options.access, device_);
  lock_image(buffered_.get(), path_, options.access);
  look();
  if (options.grain == Grain::Sectors) {
    check_sectors();
  }
  if (options.cache == DiskCache::Direct) {
    open_direct(options.access == DiskAccess::ReadWrite ? O_RDWR : O_RDONLY);
  }
}

DiskFile::DiskFile(Fd fd, std::string path) : path_{std::move(path)}, buffered_{std::move(fd)} { look(); }

void DiskFile::check_sectors() const {
  if (shape_.size == 0) {
    throw HostError{fmt::format("disk {}: is empty; give it a size, for example: truncate -s 8G {}", path_, path_)};
  }
  if (shape_.size % kSector != 0) {
    throw HostError{
        fmt::format("disk {}: {} bytes are no whole number of 512-byte sectors; a raw image? Round it "
                    "up with: truncate -s %512 {}",
                    path_, shape_.size, path_)};
  }
}

void DiskFile::look() {
  const auto size = size_of(buffered_.get(), device_);
  if (!size) {
    fail_errno(errno, fmt::format("disk {}: cannot tell its size", path_));
  }
  shape_ = {.size = *size, .logical_block = kSector, .physical_block = kPage};
  if (device_) {
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(buffered_.get(), BLKSSZGET, &logical) == 0 && ::ioctl(buffered_.get(), BLKPBSZGET, &physical) == 0) {
      shape_.logical_block = static_cast<std::uint32_t>(logical);
      shape_.physical_block = std::max(physical, shape_.logical_block);
    }
  }
}

void DiskFile::refresh() noexcept {
  const auto size = size_of(buffered_.get(), device_);
  if (size && *size % kSector == 0) {
    shape_.size = *size;
  }
}

void DiskFile::open_direct(int flags) {
  const int fd = ::open(fmt::format("/proc/self/fd/{}", buffered_.get()).c_str(), flags | O_DIRECT | O_CLOEXEC);
  if (fd < 0) {
    fail_errno(errno, fmt::format("disk {}: its file system has no O_DIRECT; use cache=writeback", path_));
  }
  direct_ = Fd{fd};
  // A guess that is too strict sends more through the page cache; one too lax is corrected by EINVAL.
  memory_alignment_ = kSector;
  offset_alignment_ = device_ ? shape_.logical_block : kSector;
  struct statx status {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN) != 0 &&
      status.stx_dio_offset_align != 0) {
    memory_alignment_ = std::max(status.stx_dio_mem_align, 1U);
    offset_alignment_ = status.stx_dio_offset_align;
  }
}

int DiskFile::fd_for(std::span<const iovec> buffers, std::uint64_t offset) const noexcept {
  if (!direct_ || offset % offset_alignment_ != 0) {
    return buffered_.get();
  }
  const bool aligned = std::ranges::all_of(buffers, [this](const iovec& buffer) {
    return reinterpret_cast<std::uintptr_t>(buffer.iov_base) % memory_alignment_ == 0 &&
           buffer.iov_len % offset_alignment_ == 0;
  });
  return aligned ? direct_.get() : buffered_.get();
}

}  // namespace martlet::virtio
