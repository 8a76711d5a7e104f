#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/image_file.h"
#include "devices/virtio/qcow2_header.h"
#include "devices/virtio/qcow2_layout.h"
#include "devices/virtio/qcow2_tables.h"

namespace martlet::virtio {

/// How often each cluster of the file is used: "Host cluster management".
class Refcounts {
 public:
  Refcounts(ImageFile& file, const Qcow2Header& header, TableCache& tables, Qcow2Layout& layout);

  /// Reads the refcount table. Throws HostError when it cannot be followed.
  void load();

  struct Allocated {
    ClusterRun run{};
    bool zeroes = false;  ///< the file reads as zeroes there
  };
  /// Takes free clusters in a row, one at least and up to `wanted`. An errno value, or 0.
  [[nodiscard]] int allocate(std::uint64_t wanted, Allocated& got) noexcept;
  /// One user less. What a table lies about stays as it is.
  void release(const ClusterRun& run) noexcept;

  /// What changed besides the blocks, which are the cache's. `moved`, a new refcount table, is to be on the disk
  /// before `linked`, which leads to it or to new blocks.
  struct Changes {
    std::vector<TablePiece> moved{};
    std::vector<TablePiece> linked{};
  };
  [[nodiscard]] Changes take();
  void put_back() noexcept;
  /// Clusters that a moved table left behind, free once what was taken is on the disk.
  [[nodiscard]] std::vector<ClusterRun> take_left() noexcept { return std::exchange(left_, {}); }

 private:
  [[nodiscard]] std::uint64_t get(std::span<const std::byte> block, std::uint64_t index) const noexcept;
  void set(std::uint64_t cluster, std::byte* block, std::uint64_t value) noexcept;
  [[nodiscard]] std::byte* load_block(std::uint64_t index, int& error) noexcept;
  [[nodiscard]] int make_block(std::uint64_t cluster) noexcept;
  [[nodiscard]] int make_table() noexcept;
  [[nodiscard]] int reserve(std::uint64_t end_cluster) noexcept;
  /// Finds a free cluster from `at` on; `at` is beyond all that was looked at when there is none.
  enum class Found { Yes, No };
  [[nodiscard]] int search(std::uint64_t& at, Found& found) noexcept;

  ImageFile& file_;
  const Qcow2Header& header_;
  TableCache& tables_;
  Qcow2Layout& layout_;
  std::uint64_t entries_;  // of a block
  std::vector<std::uint64_t> table_;
  std::vector<bool> full_;  // of each block of the table: it was searched and has nothing that is free
  ClusterRun table_run_{};
  std::uint64_t hint_ = 0;                           // no cluster before it is known to be free
  std::uint64_t fresh_from_ = 0;                     // clusters from here on were never written to
  bool moved_ = false;                               // the table, since it was last taken
  std::uint64_t changed_from_ = 0, changed_to_ = 0;  // entries of the table
  std::vector<ClusterRun> left_;
};

}  // namespace martlet::virtio
