#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio/image_file.h"
#include "devices/virtio/qcow2_header.h"
#include "devices/virtio/qcow2_layout.h"
#include "devices/virtio/qcow2_refcounts.h"
#include "devices/virtio/qcow2_tables.h"

namespace martlet::virtio {

/// Where each cluster of the disk is: "Cluster mapping". A cluster's number is that on the disk, not in the file.
class Qcow2Map {
 public:
  Qcow2Map(ImageFile& file, const Qcow2Header& header, TableCache& tables, Refcounts& refcounts, Qcow2Layout& layout);

  /// Reads the L1 table. Throws HostError when that fails.
  void load();

  /// Clusters in a row that are alike and, if they are in the file, in a row there, too.
  struct Extent {
    enum class Kind {
      Unallocated,  ///< as in the backing file, or zeroes
      Zero,
      Data,
      Compressed,  ///< one cluster
    };
    Kind kind = Kind::Unallocated;
    std::uint64_t clusters = 0;
    std::uint64_t host = 0;  ///< Data, and Zero that has room in the file: bytes from its start. Compressed: the entry
    bool exclusive = false;  ///< may be written to where it is
  };
  /// The extent at `cluster`, `limit` clusters at most. An errno value, or 0: EIO where a table cannot be true.
  [[nodiscard]] int find(std::uint64_t cluster, std::uint64_t limit, Extent& extent) noexcept;

  /// So many clusters from `cluster` on are told of by the same L2 table.
  [[nodiscard]] std::uint64_t table_rest(std::uint64_t cluster) const noexcept {
    return header_.l2_entries() - cluster % header_.l2_entries();
  }
  /// Makes sure that the L2 table which tells of `cluster` may be written to. An errno value, or 0.
  [[nodiscard]] int prepare(std::uint64_t cluster) noexcept;
  /// After prepare(): `count` clusters are at `host` in the file from now on; or, when that is 0, all have `entry`.
  struct Target {
    std::uint64_t host = 0;
    std::uint64_t entry = 0;
    enum class Room { Give, Keep } room = Room::Give;  ///< of clusters that become Zero and may keep theirs
  };
  [[nodiscard]] int replace(std::uint64_t cluster, std::uint64_t count, const Target& target) noexcept;

  /// Clusters of the file that nothing here leads to any more, free once what was taken is on the disk.
  [[nodiscard]] std::vector<ClusterRun> take_left() noexcept { return std::exchange(left_, {}); }
  [[nodiscard]] std::size_t left() const noexcept { return left_.size(); }
  /// Saving what was taken failed: these are left still.
  void leave(std::span<const ClusterRun> runs) { left_.insert(left_.end(), runs.begin(), runs.end()); }

  /// What changed in the L1 table; L2 tables are the cache's.
  [[nodiscard]] std::vector<TablePiece> take();
  void put_back(std::span<const TablePiece> pieces) noexcept;

  /// A compressed cluster's bytes in the file: "Compressed Clusters Descriptor".
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> compressed_bytes(std::uint64_t entry) const noexcept;

 private:
  [[nodiscard]] int classify(std::uint64_t entry, Extent& extent) const noexcept;
  [[nodiscard]] int load_l2(std::uint64_t cluster, std::byte*& table) noexcept;
  [[nodiscard]] ClusterRun file_clusters(std::uint64_t entry) const noexcept;
  void leave(const ClusterRun& run);
  void set_l1(std::uint64_t index, std::uint64_t entry) noexcept;

  ImageFile& file_;
  const Qcow2Header& header_;
  TableCache& tables_;
  Refcounts& refcounts_;
  Qcow2Layout& layout_;
  std::vector<std::uint64_t> l1_;
  std::uint64_t changed_from_ = 0, changed_to_ = 0;  // entries of l1_
  std::vector<ClusterRun> left_;
};

}  // namespace martlet::virtio
