#include "devices/virtio/qcow2_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "devices/virtio/block_wire.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr auto kEntry = sizeof(std::uint64_t);
using Kind = Qcow2Map::Extent::Kind;

}  // namespace

Qcow2Map::Qcow2Map(ImageFile& file, const Qcow2Header& header, TableCache& tables, Refcounts& refcounts,
                   Qcow2Layout& layout)
    : file_{file}, header_{header}, tables_{tables}, refcounts_{refcounts}, layout_{layout} {}

void Qcow2Map::load() {
  std::vector<std::byte> bytes(header_.l1_entries * kEntry);
  if (const int error = file_.read(bytes, header_.l1_offset); error != 0) {
    fail_errno(error, fmt::format("disk {}: its L1 table cannot be read", file_.name()));
  }
  l1_.resize(header_.l1_entries);
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    l1_[i] = load_big<std::uint64_t>(bytes, i * kEntry);
    const auto offset = l1_[i] & kEntryOffset;
    // What cannot be an L2 table is an I/O error of those who need it.
    if (offset != 0 && offset % header_.cluster() == 0 && offset < file_.size() &&
        !layout_.holds(offset / header_.cluster())) {
      layout_.add(offset / header_.cluster(), Qcow2Layout::Kind::L2);
    }
  }
}

/// The table that tells of `cluster`; null when there is none. Valid until the cache is used again.
int Qcow2Map::load_l2(std::uint64_t cluster, std::byte*& table) noexcept {
  table = nullptr;
  const auto index = cluster / header_.l2_entries();
  if (index >= l1_.size() || (l1_[index] & kL1Reserved) != 0) {
    return EIO;
  }
  const auto offset = l1_[index] & kEntryOffset;
  if (offset == 0) {
    return 0;
  }
  if (offset % header_.cluster() != 0 || layout_.is_fixed(offset / header_.cluster()) ||
      layout_.table_at(offset / header_.cluster()) != Qcow2Layout::Kind::L2) {
    return EIO;
  }
  int error = 0;
  table = tables_.load(offset, TableCache::Kind::L2, error);
  return error;
}

std::pair<std::uint64_t, std::uint64_t> Qcow2Map::compressed_bytes(std::uint64_t entry) const noexcept {
  const auto bits = 62 - (header_.cluster_bits - 8);
  const auto at = entry & ((1ULL << bits) - 1);
  const auto sectors = (entry & ~(kEntryCopied | kEntryCompressed)) >> bits;
  return {at, (at / kSector + 1 + sectors) * kSector - at};
}

/// Those of the file that an entry uses; none when it cannot be true.
ClusterRun Qcow2Map::file_clusters(std::uint64_t entry) const noexcept {
  if ((entry & kEntryCompressed) != 0) {
    const auto [at, bytes] = compressed_bytes(entry);
    const auto first = at / kSector * kSector / header_.cluster();
    return {first, (at + bytes - 1) / header_.cluster() - first + 1};
  }
  const auto offset = entry & kEntryOffset;
  return {offset / header_.cluster(), offset != 0 && offset % header_.cluster() == 0 ? 1U : 0U};
}

int Qcow2Map::classify(std::uint64_t entry, Extent& extent) const noexcept {
  extent = {.clusters = 1};
  if ((entry & kEntryCompressed) != 0) {
    extent.kind = Kind::Compressed;
    extent.host = entry;
    const auto run = file_clusters(entry);
    if (compressed_bytes(entry).first >= file_.size() || layout_.holds(run.first) ||
        layout_.holds(run.first + run.count - 1)) {
      return EIO;
    }
    return 0;
  }
  const auto offset = entry & kEntryOffset;
  const bool zero = (entry & kEntryZero) != 0;
  const bool copied = (entry & kEntryCopied) != 0;
  if ((entry & kL2Reserved) != 0 || (zero && header_.version == 2) || (offset == 0 && copied)) {
    return EIO;
  }
  if (offset == 0) {
    extent.kind = zero ? Kind::Zero : Kind::Unallocated;
    return 0;
  }
  if (offset % header_.cluster() != 0 || offset >= file_.size() || layout_.holds(offset / header_.cluster())) {
    return EIO;
  }
  extent.kind = zero ? Kind::Zero : Kind::Data;
  extent.host = offset;
  extent.exclusive = copied;
  return 0;
}

int Qcow2Map::find(std::uint64_t cluster, std::uint64_t limit, Extent& extent) noexcept {
  std::byte* table = nullptr;
  if (const int error = load_l2(cluster, table); error != 0) {
    return error;
  }
  limit = std::min(limit, table_rest(cluster));
  if (table == nullptr) {
    extent = {.clusters = limit};
    return 0;
  }
  const std::span bytes{table, header_.cluster()};
  const auto first = cluster % header_.l2_entries();
  if (const int error = classify(load_big<std::uint64_t>(bytes, first * kEntry), extent); error != 0) {
    return error;
  }
  while (extent.clusters < limit && extent.kind != Kind::Compressed) {
    Extent next;
    const auto expected = extent.host == 0 ? 0 : extent.host + extent.clusters * header_.cluster();
    if (classify(load_big<std::uint64_t>(bytes, (first + extent.clusters) * kEntry), next) != 0 ||
        next.kind != extent.kind || next.host != expected || next.exclusive != extent.exclusive) {
      break;
    }
    ++extent.clusters;
  }
  return 0;
}

void Qcow2Map::set_l1(std::uint64_t index, std::uint64_t entry) noexcept {
  l1_[index] = entry;
  changed_from_ = changed_from_ == changed_to_ ? index : std::min(changed_from_, index);
  changed_to_ = std::max(changed_to_, index + 1);
}

int Qcow2Map::prepare(std::uint64_t cluster) noexcept {
  std::byte* old = nullptr;
  if (const int error = load_l2(cluster, old); error != 0) {
    return error;
  }
  const auto index = cluster / header_.l2_entries();
  if (old != nullptr && (l1_[index] & kEntryCopied) != 0) {
    return 0;
  }
  const std::vector<std::byte> copy(old, old == nullptr ? old : old + header_.cluster());
  Refcounts::Allocated got;
  if (const int error = refcounts_.allocate(1, got); error != 0) {
    return error;
  }
  const auto offset = got.run.first * header_.cluster();
  auto* const table = tables_.make(offset, TableCache::Kind::L2);
  std::ranges::copy(copy, table);
  layout_.add(got.run.first, Qcow2Layout::Kind::L2);
  if (old != nullptr) {  // a snapshot's, too
    const auto shared = l1_[index] & kEntryOffset;
    tables_.forget(shared);
    layout_.remove(shared / header_.cluster());
    leave({shared / header_.cluster(), 1});
  }
  set_l1(index, offset | kEntryCopied);
  return 0;
}

void Qcow2Map::leave(const ClusterRun& run) {
  if (run.count == 0) {
    return;
  }
  if (!left_.empty() && left_.back().first + left_.back().count == run.first) {
    left_.back().count += run.count;
  } else {
    left_.push_back(run);
  }
}

int Qcow2Map::replace(std::uint64_t cluster, std::uint64_t count, const Target& target) noexcept {
  std::byte* table = nullptr;
  if (const int error = load_l2(cluster, table); error != 0 || table == nullptr || count > table_rest(cluster)) {
    return EIO;
  }
  const std::span bytes{table, header_.cluster()};
  const auto first = cluster % header_.l2_entries();
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto at = (first + i) * kEntry;
    const auto old = load_big<std::uint64_t>(bytes, at);
    auto entry = target.host == 0 ? target.entry : (target.host + i * header_.cluster()) | kEntryCopied;
    const bool exclusive = (old & kEntryCopied) != 0 && (old & kEntryCompressed) == 0;
    if (target.host == 0 && target.room == Target::Room::Keep && exclusive) {
      entry = old | kEntryZero;
    }
    if ((old & kEntryOffset) != (entry & kEntryOffset) || (old & kEntryCompressed) != 0) {
      leave(file_clusters(old));
    }
    store_big(bytes, at, entry);
  }
  tables_.changed(l1_[cluster / header_.l2_entries()] & kEntryOffset, first * kEntry, count * kEntry);
  return 0;
}

std::vector<TablePiece> Qcow2Map::take() {
  if (changed_from_ == changed_to_) {
    return {};
  }
  TablePiece piece{.offset = header_.l1_offset + changed_from_ * kEntry};
  piece.bytes.resize((changed_to_ - changed_from_) * kEntry);
  for (auto i = changed_from_; i < changed_to_; ++i) {
    store_big(std::span{piece.bytes}, (i - changed_from_) * kEntry, l1_[i]);
  }
  changed_from_ = changed_to_ = 0;
  return {std::move(piece)};
}

void Qcow2Map::put_back(std::span<const TablePiece> pieces) noexcept {
  for (const auto& piece : pieces) {
    const auto first = (piece.offset - header_.l1_offset) / kEntry;
    for (std::uint64_t i = 0; i < piece.bytes.size() / kEntry; ++i) {
      set_l1(first + i, l1_[first + i]);
    }
  }
}

}  // namespace martlet::virtio
