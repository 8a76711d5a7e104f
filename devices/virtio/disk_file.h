#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_options.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

/// An image on the host, a file or a block device: opened, looked at and locked.
class DiskFile {
 public:
  enum class Grain {
    Sectors,  ///< its bytes are a disk: whole sectors, at least one
    Any,      ///< a format of its own; may be empty
  };
  struct Options {
    std::string path{};
    DiskAccess access = DiskAccess::ReadWrite;
    DiskCache cache = DiskCache::Writeback;
    Grain grain = Grain::Sectors;
  };
  /// Throws HostError: missing, unreadable, a directory, empty, no whole sectors, in use.
  explicit DiskFile(const Options& options);
  /// A file that is there already and nobody else's.
  DiskFile(Fd fd, std::string path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] bool is_device() const noexcept { return device_; }
  [[nodiscard]] const DiskShape& shape() const noexcept { return shape_; }
  /// Throws HostError unless its bytes can be a disk: whole sectors, at least one.
  void check_sectors() const;
  /// Looks again how large it is. Keeps the old size when that fails, or is no whole number of sectors.
  void refresh() noexcept;

  /// Through the page cache: takes everything.
  [[nodiscard]] int buffered() const noexcept { return buffered_.get(); }
  /// For reading or writing `buffers` at `offset`: past the page cache if that is asked for and they are
  /// aligned. The kernel keeps both ways coherent.
  [[nodiscard]] int fd_for(std::span<const iovec> buffers, std::uint64_t offset) const noexcept;

 private:
  void look();
  void open_direct(int flags);

  std::string path_;
  Fd buffered_;
  Fd direct_;
  bool device_ = false;
  DiskShape shape_{};
  std::uint64_t memory_alignment_ = 1;  // of what goes to direct_
  std::uint64_t offset_alignment_ = 1;
};

}  // namespace martlet::virtio
