#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/image_file.h"
#include "devices/virtio/qcow2_header.h"
#include "devices/virtio/qcow2_layout.h"
#include "devices/virtio/qcow2_map.h"
#include "devices/virtio/qcow2_refcounts.h"
#include "devices/virtio/qcow2_tables.h"

namespace martlet::virtio {

/// One qcow2 file: its tables, and what of them is to be saved. Tables are read at once, in place; nothing is
/// written here (see Qcow2Saver).
class Qcow2Image {
 public:
  /// Throws HostError: what the header says cannot be, or is more than is known here.
  Qcow2Image(std::unique_ptr<ImageFile> file, DiskAccess access);

  /// Makes it ready to be written to; nothing was changed before. Throws HostError.
  void begin_writing();

  [[nodiscard]] ImageFile& file() noexcept { return *file_; }
  [[nodiscard]] const Qcow2Header& header() const noexcept { return header_; }
  [[nodiscard]] Qcow2Map& map() noexcept { return map_; }
  [[nodiscard]] Refcounts& refcounts() noexcept { return refcounts_; }

  /// What is to be saved: each group only when the one before it, and all data written so far, is on the disk.
  /// So no table there ever leads to what is not there, and nothing that is led to counts as free.
  struct Changes {
    std::vector<std::vector<TablePiece>> groups{};  ///< refcount blocks, moved, linked, L2 tables, L1 table
    std::vector<ClusterRun> left{};                 ///< not led to any more once all is saved
  };
  [[nodiscard]] Changes take();
  void saved(const Changes& changes) noexcept;
  void put_back(Changes&& changes) noexcept;

  /// So much is to be saved that it is time to.
  [[nodiscard]] bool crowded() const noexcept;
  /// No room for more tables until some are saved.
  [[nodiscard]] bool full() const noexcept;

  /// The cluster that a compressed entry leads to, if it is the one unpacked last; else empty.
  [[nodiscard]] std::span<const std::byte> unpacked(std::uint64_t entry) const noexcept;
  /// Unpacks it from its bytes in the file. An errno value, or 0.
  [[nodiscard]] int unpack(std::uint64_t entry, std::span<const std::byte> from) noexcept;

 private:
  void find_layout(DiskAccess access);

  std::unique_ptr<ImageFile> file_;
  Qcow2Header header_;
  Qcow2Layout layout_;
  TableCache tables_;
  Refcounts refcounts_;
  Qcow2Map map_;
  std::uint64_t unpacked_entry_ = 0;
  std::vector<std::byte> unpacked_;
};

}  // namespace martlet::virtio
