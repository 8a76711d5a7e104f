#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "devices/virtio/rate_limit.h"

namespace martlet::virtio {

enum class DiskAccess { ReadWrite, ReadOnly };
enum class DiskFormat {
  Unsaid,  ///< raw, but an image that looks like qcow2 is refused: nobody gets a format by accident
  Raw,
  Qcow2,
};
enum class DiskCache {
  Writeback,  ///< the host's page cache; a flush reaches the disk
  Direct,     ///< past the page cache (O_DIRECT)
  Unsafe,     ///< flushes are ignored
};

/// A disk as users ask for it. Values are checked by whoever opens it.
struct DiskOptions {
  std::string path{};
  DiskAccess access = DiskAccess::ReadWrite;
  DiskFormat format = DiskFormat::Unsaid;
  std::string backing{};  ///< of a qcow2 image: what is read where it has nothing
  DiskFormat backing_format = DiskFormat::Unsaid;
  DiskCache cache = DiskCache::Writeback;
  std::string serial{};   ///< up to 20 characters, what the guest sees as its serial number
  std::string overlay{};  ///< where writes go instead: "tmp" or a file; empty: into the image
  std::uint16_t queues = 1;
  std::uint32_t block_size = 0;  ///< 512 or 4096; 0: the host's for a block device, 512 for a file
  RateLimits limits{};
};

inline constexpr std::size_t kSerialBytes = 20;  // virtio 1.2 §5.2.6: VIRTIO_BLK_T_GET_ID
inline constexpr std::uint16_t kMaxDiskQueues = 64;

/// "path=disk.img,readonly=on,serial=x,cache=direct,overlay=tmp,queues=2,rate=100M,burst=1M,iops=1000,
/// format=qcow2,backing=base.img,backing_format=raw,block_size=4096"; the path may come first without its key. Throws
/// HostError.
[[nodiscard]] DiskOptions parse_disk(std::string_view text);

/// Refuses two disks of one machine with the same serial number. Throws HostError that names both.
void check_serials(std::span<const DiskOptions> disks);

}  // namespace martlet::virtio
