#include "devices/virtio/disk_qcow2.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/virtio/qcow2_task.h"

namespace martlet::virtio {

Qcow2Disk::Qcow2Disk(std::unique_ptr<Qcow2Stack> stack, DiskAccess access, DiskCache cache)
    : stack_{std::move(stack)},
      size_{stack_->top().header().size},
      access_{access},
      cache_{cache},
      saver_{*stack_, [this](std::vector<ClusterRun> left, int error) { saved(std::move(left), error); }} {
  stack_->on_settled([this] {
    stack_->commit();
    settled();
  });
}

Qcow2Disk::~Qcow2Disk() {
  stack_->on_settled(nullptr);
  if (access_ == DiskAccess::ReadOnly) {
    return;
  }
  class Last final : public DiskRequest {
   public:
    void done(int) noexcept override { over = true; }
    bool over = false;
  };
  // Twice: what the first one leaves is free then, and the second one tells so.
  for (int round = 0; round < 2; ++round) {
    Last last;
    saver_.flush(last);
    while (!last.over || saver_.busy()) {
      stack_->wait();
    }
  }
}

void Qcow2Disk::begin() {
  if (access_ == DiskAccess::ReadWrite) {
    stack_->top().begin_writing();
  }
}

void Qcow2Disk::submit(DiskRequest& request) noexcept {
  using Kind = DiskRequest::Kind;
  const auto kind = request.work.kind;
  if (kind == Kind::Flush) {
    if (cache_ == DiskCache::Unsafe || access_ == DiskAccess::ReadOnly) {
      request.done(0);
    } else {
      saver_.flush(request);
    }
    return;
  }
  if (kind != Kind::Read && access_ == DiskAccess::ReadOnly) {
    request.done(EROFS);
    return;
  }
  if (idle_.empty()) {
    tasks_.push_back(std::make_unique<Task>(*this));
    idle_.push_back(tasks_.back().get());
  }
  auto* const task = idle_.back();
  idle_.pop_back();
  task->begin(request);
}

void Qcow2Disk::unlock(const ClusterRun& run) noexcept {
  const auto found = std::ranges::find(locks_, run.first, &ClusterRun::first);
  if (found != locks_.end()) {
    *found = locks_.back();
    locks_.pop_back();
  }
}

/// How many of `count` clusters from `cluster` on may be changed.
std::uint64_t Qcow2Disk::unlocked(std::uint64_t cluster, std::uint64_t count) const noexcept {
  for (const auto& run : locks_) {
    if (cluster < run.first) {
      count = std::min(count, run.first - cluster);
    } else if (cluster - run.first < run.count) {
      return 0;
    }
  }
  return count;
}

void Qcow2Disk::save_if_crowded() noexcept {
  if (stack_->top().crowded()) {
    saver_.start();
  }
}

void Qcow2Disk::saved(std::vector<ClusterRun> left, int error) noexcept {
  left_.insert(left_.end(), left.begin(), left.end());
  release_left();
  save_error_ = error;
  stack_->wake();
}

void Qcow2Disk::release_left() noexcept {
  while (true) {
    if (releasing_.empty()) {
      if (left_.empty()) {
        return;
      }
      releasing_ = std::exchange(left_, {});
      generation_ ^= 1U;
    }
    if (under_way_[generation_ ^ 1U] != 0) {
      return;
    }
    for (const auto& run : releasing_) {
      stack_->top().refcounts().release(run);
    }
    releasing_.clear();
  }
}

}  // namespace martlet::virtio
