#include "devices/virtio/qcow2_task.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vmm/base/zeroes.h"

namespace martlet::virtio {
namespace {

using ExtentKind = Qcow2Map::Extent::Kind;

constexpr std::uint64_t kZeroesAtOnce = 1U << 20U;  // written where no table can tell of them

bool in_place(const Qcow2Map::Extent& extent) { return extent.kind == ExtentKind::Data && extent.exclusive; }
/// Has room in the file that only the mark in its entry keeps from being read.
bool has_room(const Qcow2Map::Extent& extent) { return extent.kind == ExtentKind::Zero && extent.exclusive; }

}  // namespace

void Qcow2Disk::Task::begin(DiskRequest& request) noexcept {
  request_ = &request;
  generation_ = disk_.generation_;
  ++disk_.under_way_[generation_];
  at_ = request.work.offset;
  left_ = request.work.length;
  error_ = 0;
  from_ = BufferCursor{request.work.buffers};
  if (request.work.kind == Kind::Read) {
    reader_.read(at_, left_, request.work.buffers);
  } else {
    run();
  }
}

void Qcow2Disk::Task::run() noexcept {
  while (left_ != 0 && error_ == 0) {
    if (request_->cancelled) {
      error_ = ECANCELED;
    } else if (step() == Step::Waits) {
      return;
    }
  }
  finish();
}

Qcow2Disk::Task::Step Qcow2Disk::Task::step() noexcept {
  return request_->work.kind == Kind::Write ? write(left_) : zero();
}

Qcow2Disk::Task::Step Qcow2Disk::Task::park() noexcept {
  disk_.stack_->park(*this);
  return Step::Waits;
}

/// Tables must be saved first; when they cannot be, that is this request's error.
Qcow2Disk::Task::Step Qcow2Disk::Task::park_for_room() noexcept {
  if (const int error = disk_.save_error_; error != 0) {
    disk_.saver_.start();  // for those that come later
    return fail(error);
  }
  disk_.stack_->park(*this);
  disk_.saver_.start();
  return Step::Waits;
}

Qcow2Disk::Task::Step Qcow2Disk::Task::fail(int error) noexcept {
  error_ = error;
  return Step::On;
}

Qcow2Disk::Task::Step Qcow2Disk::Task::skip(std::uint64_t bytes) noexcept {
  at_ += bytes;
  left_ -= bytes;
  return Step::On;
}

/// Writes up to `most` bytes of the request's: where they are already, or to clusters that are moved.
Qcow2Disk::Task::Step Qcow2Disk::Task::write(std::uint64_t most) noexcept {
  const auto inside = at_ % cluster_size();
  const auto cluster = at_ / cluster_size();
  const auto clusters = disk_.unlocked(cluster, (inside + most - 1) / cluster_size() + 1);
  if (clusters == 0) {
    return park();
  }
  Qcow2Map::Extent extent;
  if (const int error = map().find(cluster, clusters, extent); error != 0) {
    return fail(error);
  }
  if (!in_place(extent)) {
    return move(most, clusters, extent);
  }
  move_ = {};
  piece_ = std::min(most, extent.clusters * cluster_size() - inside);
  buffers_.clear();
  take_data(piece_);
  writer_.begin(*disk_.stack_, Qcow2Stack::kTop,
                {.kind = Kind::Write, .offset = extent.host + inside, .length = piece_, .buffers = buffers_});
  return Step::Waits;
}

/// How many clusters from `cluster` on are to be moved together.
std::uint64_t Qcow2Disk::Task::movable(std::uint64_t cluster, std::uint64_t limit,
                                       const Qcow2Map::Extent& first) noexcept {
  if (has_room(first)) {
    return first.clusters;
  }
  limit = std::min(limit, map().table_rest(cluster));
  auto count = first.clusters;
  Qcow2Map::Extent next;
  while (count < limit && map().find(cluster + count, limit - count, next) == 0 && !in_place(next) && !has_room(next)) {
    count += next.clusters;
  }
  return count;
}

Qcow2Disk::Task::Step Qcow2Disk::Task::move(std::uint64_t most, std::uint64_t clusters,
                                            const Qcow2Map::Extent& extent) noexcept {
  auto& stack = *disk_.stack_;
  if (stack.top().full()) {
    return park_for_room();
  }
  const auto cluster = at_ / cluster_size();
  auto count = movable(cluster, clusters, extent);
  const auto shape = [&] {
    move_.clusters = {cluster, count};
    move_.head = at_ % cluster_size();
    piece_ = std::min(most, count * cluster_size() - move_.head);
    move_.tail = count * cluster_size() - move_.head - piece_;
  };
  move_ = {};
  shape();
  if (!stack.is_zero(at_ - move_.head, move_.head) || !stack.is_zero(at_ + piece_, move_.tail)) {
    if (!stack.copies.take(move_.head + move_.tail)) {
      return park();
    }
    move_.copied = move_.head + move_.tail;
    move_.fill = Move::Fill::Head;
  }
  int error = map().prepare(cluster);
  bool zeroes_there = false;
  if (has_room(extent)) {
    move_.host = extent.host;
  } else if (error == 0) {
    Refcounts::Allocated got;
    error = stack.top().refcounts().allocate(count, got);
    if (error == 0) {
      move_.host = got.run.first * cluster_size();
      move_.allocated = true;
      zeroes_there = got.zeroes;
      count = got.run.count;
      shape();
    }
  }
  if (error != 0) {
    stack.copies.give(std::exchange(move_.copied, 0));
    move_ = {};
    return fail(error);
  }
  if (move_.fill == Move::Fill::None && !zeroes_there) {
    move_.fill = Move::Fill::Zeroes;
  }
  disk_.lock(move_.clusters);
  fill();
  return Step::Waits;
}

/// Reads what stays of the clusters that are moved, the part before the request's bytes, then that after them.
void Qcow2Disk::Task::fill() noexcept {
  if (move_.fill == Move::Fill::Head) {
    move_.fill = Move::Fill::Tail;
    copy_.resize(move_.head + move_.tail);
    copy_to_ = {.iov_base = copy_.data(), .iov_len = move_.head};
    reader_.read(at_ - move_.head, move_.head, {&copy_to_, 1});
  } else if (move_.fill == Move::Fill::Tail) {
    move_.fill = Move::Fill::Copied;
    copy_to_ = {.iov_base = copy_.data() + move_.head, .iov_len = move_.tail};
    reader_.read(at_ + piece_, move_.tail, {&copy_to_, 1});
  } else {
    write_moved();
  }
}

void Qcow2Disk::Task::has_read(int error) noexcept {
  if (request_->work.kind == Kind::Read) {
    error_ = error;
    finish();
  } else if (error != 0) {
    end_move(error);
  } else {
    fill();
  }
}

void Qcow2Disk::Task::write_moved() noexcept {
  auto at = move_.host;
  auto length = piece_;
  const bool copied = move_.fill == Move::Fill::Copied;
  const bool filled = move_.fill != Move::Fill::None;
  buffers_.clear();
  if (!filled) {
    at += move_.head;
  } else {
    length += move_.head + move_.tail;
  }
  if (copied && move_.head != 0) {
    buffers_.push_back({.iov_base = copy_.data(), .iov_len = move_.head});
  } else if (filled) {
    add_zeroes(move_.head);
  }
  take_data(piece_);
  if (copied && move_.tail != 0) {
    buffers_.push_back({.iov_base = copy_.data() + move_.head, .iov_len = move_.tail});
  } else if (filled) {
    add_zeroes(move_.tail);
  }
  writer_.begin(*disk_.stack_, Qcow2Stack::kTop,
                {.kind = Kind::Write, .offset = at, .length = length, .buffers = buffers_});
}

void Qcow2Disk::Task::has_written(int error) noexcept {
  if (move_.host != 0) {
    end_move(error);
    return;
  }
  error_ = error;
  static_cast<void>(skip(piece_));
  run();
}

/// The clusters are where they are to be: from now on they are read from there.
void Qcow2Disk::Task::end_move(int error) noexcept {
  const auto moved = std::exchange(move_, {});
  if (error == 0) {
    error = map().replace(moved.clusters.first, moved.clusters.count, {.host = moved.host});
  }
  if (error != 0 && moved.allocated) {
    disk_.stack_->top().refcounts().release({moved.host / cluster_size(), moved.clusters.count});
  }
  disk_.unlock(moved.clusters);
  disk_.stack_->copies.give(moved.copied);
  copy_ = {};
  error_ = error;
  static_cast<void>(skip(piece_));
  disk_.save_if_crowded();
  disk_.stack_->wake();
  run();
}

/// Discard, Zero and ZeroUnmap.
Qcow2Disk::Task::Step Qcow2Disk::Task::zero() noexcept {
  const auto inside = at_ % cluster_size();
  const auto part = std::min(left_, cluster_size() - inside);
  const bool to_the_end = at_ + left_ == disk_.size_;
  if (inside != 0 || (part < cluster_size() && !to_the_end)) {
    if (request_->work.kind == Kind::Discard) {
      return skip(part);
    }
    if (disk_.unlocked(at_ / cluster_size(), 1) == 0) {
      return park();
    }
    return disk_.stack_->is_zero(at_, part) ? skip(part) : write(part);
  }
  const auto cluster = at_ / cluster_size();
  const auto wanted = left_ / cluster_size() + (to_the_end && left_ % cluster_size() != 0 ? 1 : 0);
  const auto clusters = disk_.unlocked(cluster, std::min(wanted, map().table_rest(cluster)));
  return clusters == 0 ? park() : zero_clusters(cluster, clusters);
}

Qcow2Disk::Task::Step Qcow2Disk::Task::zero_clusters(std::uint64_t cluster, std::uint64_t clusters) noexcept {
  auto& stack = *disk_.stack_;
  const auto kind = request_->work.kind;
  const bool has_mark = stack.top().header().version >= 3;
  Qcow2Map::Extent extent;
  if (const int error = map().find(cluster, clusters, extent); error != 0) {
    return fail(error);
  }
  const auto bytes = std::min(left_, extent.clusters * cluster_size());
  const bool nothing_there = extent.kind == ExtentKind::Unallocated;
  if (nothing_there && (kind == Kind::Discard || !stack.has_backing())) {
    return skip(bytes);
  }
  if (extent.kind == ExtentKind::Zero && (extent.host == 0 || kind == Kind::Zero)) {
    return skip(bytes);
  }
  if (!has_mark && (stack.has_backing() || kind == Kind::Zero)) {
    // No entry says "zeroes" and gives no room away: they are written.
    return kind == Kind::Discard ? skip(bytes) : write(std::min(bytes, kZeroesAtOnce));
  }
  if (stack.top().full()) {
    return park_for_room();
  }
  if (const int error = map().prepare(cluster); error != 0) {
    return fail(error);
  }
  const int error =
      map().replace(cluster, extent.clusters,
                    {.entry = stack.has_backing() || (has_mark && kind == Kind::Zero) ? kEntryZero : std::uint64_t{0},
                     .room = kind == Kind::Zero ? Qcow2Map::Target::Room::Keep : Qcow2Map::Target::Room::Give});
  disk_.save_if_crowded();
  return error != 0 ? fail(error) : skip(bytes);
}

/// The next bytes of what is written.
void Qcow2Disk::Task::take_data(std::uint64_t bytes) {
  if (request_->work.kind == Kind::Write) {
    from_.take(bytes, buffers_);
  } else {
    add_zeroes(bytes);
  }
}

void Qcow2Disk::Task::add_zeroes(std::uint64_t bytes) {
  while (bytes != 0) {
    buffers_.push_back(zeroes_to_write(bytes));
    bytes -= buffers_.back().iov_len;
  }
}

void Qcow2Disk::Task::finish() noexcept {
  auto& request = *std::exchange(request_, nullptr);
  auto& disk = disk_;
  --disk.under_way_[generation_];
  disk.release_left();
  disk.idle_.push_back(this);
  request.done(error_);
}

}  // namespace martlet::virtio
