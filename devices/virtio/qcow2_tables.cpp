#include "devices/virtio/qcow2_tables.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace martlet::virtio {
namespace {

constexpr std::size_t kGrain = 4096;  // what is saved of a table is whole blocks of this size

}  // namespace

TableCache::TableCache(ImageFile& file, std::size_t cluster)
    : file_{file}, cluster_{cluster}, capacity_{std::max(kBytes / cluster, kFewest)} {}

TableCache::Table* TableCache::find(std::uint64_t offset) noexcept {
  const auto found = index_.find(offset);
  return found == index_.end() ? nullptr : &*found->second;
}

TableCache::Table& TableCache::add(std::uint64_t offset, Kind kind) {
  std::vector<std::byte> bytes;
  if (tables_.size() >= capacity_) {
    const auto last = std::find_if(tables_.rbegin(), tables_.rend(), [](const Table& table) { return !table.stays(); });
    if (last != tables_.rend()) {
      bytes = std::move(last->bytes);
      index_.erase(last->offset);
      tables_.erase(std::next(last).base());
    }
  }
  bytes.resize(cluster_);
  tables_.push_front({.offset = offset, .kind = kind, .bytes = std::move(bytes)});
  index_[offset] = tables_.begin();
  return tables_.front();
}

std::byte* TableCache::load(std::uint64_t offset, Kind kind, int& error) noexcept {
  if (auto* const table = find(offset)) {
    if (table->kind != kind) {
      error = EIO;
      return nullptr;
    }
    tables_.splice(tables_.begin(), tables_, index_[offset]);
    return table->bytes.data();
  }
  auto& table = add(offset, kind);
  error = file_.read(table.bytes, offset);
  if (error != 0) {
    forget(offset);
    return nullptr;
  }
  return table.bytes.data();
}

std::byte* TableCache::make(std::uint64_t offset, Kind kind) noexcept {
  forget(offset);
  auto& table = add(offset, kind);
  std::ranges::fill(table.bytes, std::byte{0});
  table.to = cluster_;
  ++held_;
  return table.bytes.data();
}

void TableCache::changed(std::uint64_t offset, std::size_t from, std::size_t count) noexcept {
  auto* const table = find(offset);
  if (table == nullptr || count == 0) {
    return;
  }
  held_ += table->stays() ? 0 : 1;
  const auto begin = from / kGrain * kGrain;
  const auto end = std::min(cluster_, (from + count + kGrain - 1) / kGrain * kGrain);
  table->from = table->from == table->to ? begin : std::min(table->from, begin);
  table->to = std::max(table->to, end);
}

void TableCache::forget(std::uint64_t offset) noexcept {
  const auto found = index_.find(offset);
  if (found != index_.end()) {
    held_ -= found->second->stays() ? 1 : 0;
    tables_.erase(found->second);
    index_.erase(found);
  }
}

std::vector<TablePiece> TableCache::take(Kind kind) {
  std::vector<TablePiece> pieces;
  for (auto& table : tables_) {
    if (table.kind == kind && table.from != table.to) {
      const auto begin = table.bytes.begin();
      pieces.push_back(
          {.offset = table.offset + table.from,
           .bytes = {begin + static_cast<std::ptrdiff_t>(table.from), begin + static_cast<std::ptrdiff_t>(table.to)}});
      table.from = table.to = 0;
      table.saving = true;
    }
  }
  std::ranges::sort(pieces, {}, &TablePiece::offset);
  return pieces;
}

void TableCache::saved(std::span<const TablePiece> pieces) noexcept {
  for (const auto& piece : pieces) {
    if (auto* const table = find(piece.offset / cluster_ * cluster_)) {
      table->saving = false;
      held_ -= table->stays() ? 0 : 1;
    }
  }
}

void TableCache::put_back(std::span<const TablePiece> pieces) noexcept {
  for (const auto& piece : pieces) {
    const auto offset = piece.offset / cluster_ * cluster_;
    changed(offset, piece.offset - offset, piece.bytes.size());
  }
  saved(pieces);
}

}  // namespace martlet::virtio
