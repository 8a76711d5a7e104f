#include "devices/virtio/qcow2_refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kMaxTableBytes = 8U << 20U;
constexpr std::uint64_t kMaxOffset = 1ULL << 56U;  // that an L2 entry has room for
constexpr std::uint64_t kGrowth = 1U << 20U;       // of the file, at least
// So many blocks are searched for a free cluster, then the file's end is taken: a bound on what one write costs.
constexpr std::uint64_t kSearched = 256;

}  // namespace

Refcounts::Refcounts(ImageFile& file, const Qcow2Header& header, TableCache& tables, Qcow2Layout& layout)
    : file_{file},
      header_{header},
      tables_{tables},
      layout_{layout},
      entries_{header.block_entries()},
      table_run_{header.refcount_table_offset / header.cluster(), header.refcount_table_clusters},
      fresh_from_{(file.size() - 1) / header.cluster() + 1} {}

void Refcounts::load() {
  std::vector<std::byte> bytes(table_run_.count * header_.cluster());
  if (const int error = file_.read(bytes, header_.refcount_table_offset); error != 0) {
    fail_errno(error, fmt::format("disk {}: its refcount table cannot be read", file_.name()));
  }
  table_.resize(bytes.size() / sizeof(std::uint64_t));
  full_.resize(table_.size());
  for (std::size_t i = 0; i < table_.size(); ++i) {
    const auto offset = table_[i] = load_big<std::uint64_t>(bytes, i * sizeof(std::uint64_t));
    const auto cluster = offset / header_.cluster();
    if (offset == 0) {
      continue;
    }
    if (offset % header_.cluster() != 0 || offset >= file_.size() || layout_.holds(cluster)) {
      throw HostError{fmt::format(
          "disk {}: entry {} of its refcount table is {:#x}; expected a cluster of its own inside the file; "
          "repair it with: qemu-img check -r all {}",
          file_.name(), i, offset, file_.name())};
    }
    layout_.add(cluster, Qcow2Layout::Kind::Refcounts);
  }
}

std::uint64_t Refcounts::get(std::span<const std::byte> block, std::uint64_t index) const noexcept {
  switch (header_.refcount_order) {
    case 6:
      return load_big<std::uint64_t>(block, index * 8);
    case 5:
      return load_big<std::uint32_t>(block, index * 4);
    case 4:
      return load_big<std::uint16_t>(block, index * 2);
    case 3:
      return std::to_integer<std::uint64_t>(block[index]);
    default: {  // several in a byte, the first one in its low bits
      const auto bits = 1U << header_.refcount_order;
      const auto shift = index * bits % 8;
      return std::to_integer<std::uint64_t>(block[index * bits / 8]) >> shift & ((1U << bits) - 1);
    }
  }
}

void Refcounts::set(std::uint64_t cluster, std::byte* block, std::uint64_t value) noexcept {
  const auto index = cluster % entries_;
  const std::span bytes{block, header_.cluster()};
  const auto bits = 1U << header_.refcount_order;
  switch (header_.refcount_order) {
    case 6:
      store_big(bytes, index * 8, value);
      break;
    case 5:
      store_big(bytes, index * 4, static_cast<std::uint32_t>(value));
      break;
    case 4:
      store_big(bytes, index * 2, static_cast<std::uint16_t>(value));
      break;
    case 3:
      bytes[index] = static_cast<std::byte>(value);
      break;
    default: {
      const auto shift = index * bits % 8;
      const auto mask = static_cast<std::byte>(((1U << bits) - 1) << shift);
      auto& byte = bytes[index * bits / 8];
      byte = (byte & ~mask) | static_cast<std::byte>(value << shift);
    }
  }
  tables_.changed(table_[cluster / entries_], index * bits / 8, std::max<std::size_t>(bits / 8, 1));
}

std::byte* Refcounts::load_block(std::uint64_t index, int& error) noexcept {
  return tables_.load(table_[index], TableCache::Kind::Refcounts, error);
}

/// Makes the file reach to `end_cluster`.
int Refcounts::reserve(std::uint64_t end_cluster) noexcept {
  const auto end = end_cluster * header_.cluster();
  if (end > kMaxOffset) {
    return EFBIG;
  }
  fresh_from_ = std::max(fresh_from_, end_cluster);
  if (end <= file_.size()) {
    return 0;
  }
  const auto grain = std::max(kGrowth, header_.cluster());
  return file_.grow((end + grain - 1) / grain * grain);
}

/// The block that tells of `cluster` is missing: it goes into that cluster, and tells of itself.
int Refcounts::make_block(std::uint64_t cluster) noexcept {
  if (const int error = reserve(cluster + 1); error != 0) {
    return error;
  }
  const auto index = cluster / entries_;
  const auto offset = cluster * header_.cluster();
  auto* const block = tables_.make(offset, TableCache::Kind::Refcounts);
  table_[index] = offset;
  set(cluster, block, 1);
  layout_.add(cluster, Qcow2Layout::Kind::Refcounts);
  changed_from_ = changed_from_ == changed_to_ ? index : std::min(changed_from_, index);
  changed_to_ = std::max(changed_to_, index + 1);
  return 0;
}

/// The refcount table is full: a larger one, and blocks that tell of it and of themselves, go to where the old one
/// told of nothing.
int Refcounts::make_table() noexcept {
  const auto cluster = header_.cluster();
  const auto first = table_.size() * entries_;
  const auto per_cluster = cluster / sizeof(std::uint64_t);
  const auto clusters = (table_.size() + table_.size() / 2) / per_cluster + 2;
  if (clusters * cluster > kMaxTableBytes) {
    return EFBIG;
  }
  std::uint64_t blocks = 1;
  while (blocks * entries_ < clusters + blocks) {
    ++blocks;
  }
  const auto end = first + clusters + blocks;
  for (auto at = first; at < end; ++at) {
    if (layout_.holds(at)) {
      return EIO;  // tables that nothing counts
    }
  }
  if (const int error = reserve(end); error != 0) {
    return error;
  }
  const auto old = table_.size();
  table_.resize(clusters * per_cluster);
  full_.resize(table_.size());
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const auto at = first + clusters + i;
    table_[old + i] = at * cluster;
    auto* const block = tables_.make(at * cluster, TableCache::Kind::Refcounts);
    layout_.add(at, Qcow2Layout::Kind::Refcounts);
    for (auto told = std::max(first, (old + i) * entries_); told < std::min(end, (old + i + 1) * entries_); ++told) {
      set(told, block, 1);
    }
  }
  layout_.move(table_run_.first, {first, clusters});
  left_.push_back(table_run_);
  table_run_ = {first, clusters};
  moved_ = true;
  return 0;
}

int Refcounts::search(std::uint64_t& at, Found& found) noexcept {
  found = Found::No;
  for (std::uint64_t searched = 0; searched < kSearched; ++searched) {
    const auto index = at / entries_;
    const auto end = (index + 1) * entries_;
    if (index >= table_.size()) {
      if (const int error = make_table(); error != 0) {
        return error;
      }
    }
    if (full_[index]) {
      at = end;
      continue;
    }
    if (table_[index] == 0) {
      while (at < end && layout_.holds(at)) {
        ++at;
      }
      if (at == end) {
        continue;
      }
      if (const int error = make_block(at); error != 0) {
        return error;
      }
    }
    int error = 0;
    const auto* const block = load_block(index, error);
    if (block == nullptr) {
      return error;
    }
    const bool whole = at == index * entries_;
    for (; at < end; ++at) {
      if (get({block, header_.cluster()}, at % entries_) == 0 && !layout_.holds(at)) {
        found = Found::Yes;
        return 0;
      }
    }
    full_[index] = whole;
  }
  return 0;
}

int Refcounts::allocate(std::uint64_t wanted, Allocated& got) noexcept {
  auto at = hint_;
  auto found = Found::No;
  int error = search(at, found);
  if (error == 0 && found == Found::No) {
    at = std::max(at, (file_.size() - 1) / header_.cluster() + 1);
    error = search(at, found);
  }
  if (error != 0 || found == Found::No) {
    return error != 0 ? error : ENOSPC;
  }
  hint_ = at;
  auto* const block = load_block(at / entries_, error);
  if (block == nullptr) {
    return error;
  }
  const auto end = std::min((at / entries_ + 1) * entries_, at + wanted);
  auto last = at + 1;
  while (last < end && get({block, header_.cluster()}, last % entries_) == 0 && !layout_.holds(last)) {
    ++last;
  }
  got = {.run = {at, last - at}, .zeroes = at >= fresh_from_ && file_.growth() == ImageFile::Growth::Zeroes};
  error = reserve(last);
  if (error != 0) {
    return error;
  }
  for (auto cluster = at; cluster < last; ++cluster) {
    set(cluster, block, 1);
  }
  hint_ = last;
  return 0;
}

void Refcounts::release(const ClusterRun& run) noexcept {
  for (auto cluster = run.first; cluster < run.first + run.count; ++cluster) {
    const auto index = cluster / entries_;
    int error = 0;
    if (index >= table_.size() || table_[index] == 0 || layout_.holds(cluster)) {
      continue;
    }
    auto* const block = load_block(index, error);
    if (block == nullptr) {
      continue;  // leaked
    }
    const auto value = get({block, header_.cluster()}, cluster % entries_);
    if (value != 0) {
      set(cluster, block, value - 1);
    }
    if (value <= 1) {
      hint_ = std::min(hint_, cluster);
      full_[index] = false;
    }
  }
}

Refcounts::Changes Refcounts::take() {
  constexpr auto kEntry = sizeof(std::uint64_t);
  Changes changes;
  const auto piece = [&](std::uint64_t from, std::uint64_t to) {
    TablePiece entries{.offset = table_run_.first * header_.cluster() + from * kEntry};
    entries.bytes.resize((to - from) * kEntry);
    for (auto i = from; i < to; ++i) {
      store_big(std::span{entries.bytes}, (i - from) * kEntry, table_[i]);
    }
    return entries;
  };
  if (moved_) {
    changes.moved.push_back(piece(0, table_.size()));
    TablePiece where{.offset = Qcow2Header::kRefcountTableOffset, .bytes = std::vector<std::byte>(12)};
    store_big(std::span{where.bytes}, 0, table_run_.first * header_.cluster());
    store_big(std::span{where.bytes}, 8, static_cast<std::uint32_t>(table_run_.count));
    static_assert(Qcow2Header::kRefcountTableClusters == Qcow2Header::kRefcountTableOffset + 8);
    changes.linked.push_back(std::move(where));
  } else if (changed_from_ != changed_to_) {
    changes.linked.push_back(piece(changed_from_, changed_to_));
  }
  moved_ = false;
  changed_from_ = changed_to_ = 0;
  return changes;
}

/// Saving failed: all of the table counts as changed. Where it is may not have reached the header: that counts as
/// moved, for the header is written after the table then.
void Refcounts::put_back() noexcept {
  moved_ = moved_ || table_run_.first * header_.cluster() != header_.refcount_table_offset;
  changed_from_ = 0;
  changed_to_ = table_.size();
}

}  // namespace martlet::virtio
