#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "devices/virtio/image_file.h"

namespace martlet::virtio {

/// Bytes on their way to their place in the file.
struct TablePiece {
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes{};
};

/// The tables of a qcow2 image, a cluster each, that are in memory: L2 tables and refcount blocks. Changes stay
/// here until they are taken to be saved; only what is on the disk as it is here makes room for others.
class TableCache {
 public:
  enum class Kind { L2, Refcounts };
  static constexpr std::size_t kBytes = 32U << 20U;
  static constexpr std::size_t kFewest = 16;  // tables, however large

  TableCache(ImageFile& file, std::size_t cluster);

  /// The table at `offset`, read if need be; valid until the next call. Null, and `error` an errno value, when it
  /// cannot be read, or is known as one of another kind.
  [[nodiscard]] std::byte* load(std::uint64_t offset, Kind kind, int& error) noexcept;
  /// A new one at `offset`: all zeroes, all changed. Valid until the next call.
  [[nodiscard]] std::byte* make(std::uint64_t offset, Kind kind) noexcept;
  /// Bytes of a loaded table were changed.
  void changed(std::uint64_t offset, std::size_t from, std::size_t count) noexcept;
  /// The cluster is no table any more.
  void forget(std::uint64_t offset) noexcept;

  /// Tables that must stay, for they are not on the disk as they are here.
  [[nodiscard]] std::size_t held() const noexcept { return held_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  /// What changed in tables of this kind: a copy, to be saved. Until saved() or put_back() they stay in memory.
  [[nodiscard]] std::vector<TablePiece> take(Kind kind);
  void saved(std::span<const TablePiece> pieces) noexcept;
  /// Saving them failed: they count as changed again.
  void put_back(std::span<const TablePiece> pieces) noexcept;

 private:
  struct Table {
    std::uint64_t offset = 0;
    Kind kind = Kind::L2;
    std::vector<std::byte> bytes{};
    std::size_t from = 0;  // what changed; nothing when from == to
    std::size_t to = 0;
    bool saving = false;

    [[nodiscard]] bool stays() const noexcept { return saving || from != to; }
  };
  using Tables = std::list<Table>;  // the one used last comes first

  Table& add(std::uint64_t offset, Kind kind);
  [[nodiscard]] Table* find(std::uint64_t offset) noexcept;

  ImageFile& file_;
  std::size_t cluster_;
  std::size_t capacity_;
  Tables tables_;
  std::unordered_map<std::uint64_t, Tables::iterator> index_;
  std::size_t held_ = 0;
};

}  // namespace martlet::virtio
