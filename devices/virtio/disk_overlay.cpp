#include "devices/virtio/disk_overlay.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "devices/virtio/block_wire.h"
#include "devices/virtio/disk_job.h"

namespace martlet::virtio {
namespace {

using Kind = DiskRequest::Kind;

}  // namespace

/// One request but a flush. A read goes run by run, each from where its sectors are.
class OverlayDisk::Task final : public DiskJob {
 public:
  explicit Task(OverlayDisk& disk) : disk_{disk} {}

  void begin(DiskRequest& request) noexcept {
    request_ = &request;
    done_ = 0;
    buffer_ = 0;
    used_ = 0;
    next();
  }

 private:
  void next() noexcept {
    auto work = request_->work;
    const auto& overlay = disk_.overlay_;
    if (work.kind != Kind::Read) {
      piece_ = work.length;
      work.offset += overlay.data_offset();
      // What was given up must not show the base again.
      work.kind = work.kind == Kind::Discard ? Kind::ZeroUnmap : work.kind;
      start(disk_.ring_, overlay.file(), work, request_->cancelled);
      return;
    }
    work.offset += done_;
    const auto run = disk_.overlay_.map().run_at(work.offset / kSector, (work.length - done_) / kSector);
    piece_ = run.sectors * kSector;
    work.length = piece_;
    cut_buffers();
    work.buffers = buffers_;
    if (run.kind == SectorMap::Run::Kind::Written) {
      work.offset += overlay.data_offset();
      start(disk_.ring_, overlay.file(), work, request_->cancelled);
    } else {
      start(disk_.ring_, disk_.base_, work, request_->cancelled);
    }
  }

  /// The next `piece_` bytes of the request's buffers.
  void cut_buffers() {
    buffers_.clear();
    for (auto left = piece_; left != 0;) {
      const auto& whole = request_->work.buffers[buffer_];
      const auto part = std::min<std::uint64_t>(left, whole.iov_len - used_);
      buffers_.push_back({.iov_base = static_cast<std::byte*>(whole.iov_base) + used_, .iov_len = part});
      left -= part;
      used_ += part;
      if (used_ == whole.iov_len) {
        ++buffer_;
        used_ = 0;
      }
    }
  }

  void done(int error) noexcept override {
    const auto& work = request_->work;
    done_ += piece_;
    if (error == 0 && work.kind != Kind::Read) {
      disk_.overlay_.map().set(work.offset / kSector, work.length / kSector);
    }
    if (error == 0 && done_ < work.length) {
      if (!request_->cancelled) {
        next();
        return;
      }
      error = ECANCELED;
    }
    auto& request = *std::exchange(request_, nullptr);
    disk_.idle_.push_back(this);
    request.done(error);
  }

  OverlayDisk& disk_;
  DiskRequest* request_ = nullptr;
  std::uint64_t done_ = 0;   // bytes, of reads
  std::uint64_t piece_ = 0;  // in flight
  std::size_t buffer_ = 0;   // of the request: where the next piece begins
  std::uint64_t used_ = 0;   // bytes of that one
  std::vector<iovec> buffers_;
};

/// Flushes, one round at a time; who comes during a round shares the next. First the data, then the map as it
/// was before: a bit on the disk is never older than the sector that it tells of.
class OverlayDisk::Saver final : public DiskJob {
 public:
  explicit Saver(OverlayDisk& disk) : disk_{disk} {}

  void flush(DiskRequest& request) noexcept {
    if (lost_writes_.error() != 0) {
      request.done(lost_writes_.error());
      return;
    }
    waiting_.push_back(&request);
    if (served_.empty()) {
      begin();
    }
  }

 private:
  enum class Step { Data, Map, MapSync };

  void begin() noexcept {
    std::swap(served_, waiting_);
    pages_ = disk_.overlay_.map().take_changed();
    saved_ = 0;
    step_ = Step::Data;
    run({.kind = Kind::Flush});
  }

  void run(const DiskRequest::Work& work) noexcept {
    start(disk_.ring_, disk_.overlay_.file(), work, never_cancelled_);
  }

  void done(int error) noexcept override {
    if (error == 0 && step_ != Step::MapSync && saved_ < pages_.size()) {
      step_ = Step::Map;
      auto& pages = pages_[saved_++];
      const iovec buffer{.iov_base = pages.bytes.data(), .iov_len = pages.bytes.size()};
      run({.kind = Kind::Write,
           .offset = disk_.overlay_.map_offset() + pages.offset,
           .length = pages.bytes.size(),
           .buffers = {&buffer, 1}});
      return;
    }
    if (error == 0 && step_ == Step::Map) {
      step_ = Step::MapSync;
      run({.kind = Kind::Flush});
      return;
    }
    if (error != 0) {
      disk_.overlay_.map().put_back(pages_);
    }
    if (step_ != Step::Map) {
      lost_writes_.flushed(error);
    }
    const auto served = std::exchange(served_, {});
    for (auto* const request : served) {
      request->done(error);
    }
    if (lost_writes_.error() != 0) {
      for (auto* const request : std::exchange(waiting_, {})) {
        request->done(lost_writes_.error());
      }
    } else if (!waiting_.empty() && served_.empty()) {
      begin();
    }
  }

  OverlayDisk& disk_;
  std::vector<DiskRequest*> waiting_;
  std::vector<DiskRequest*> served_;  // by the round under way; empty: there is none
  std::vector<SectorMap::Pages> pages_;
  std::size_t saved_ = 0;
  LostWrites lost_writes_;
  Step step_ = Step::Data;
  const bool never_cancelled_ = false;
};

OverlayDisk::OverlayDisk(EventLoop& loop, DiskFile base, const std::string& where, DiskCache cache)
    : base_{std::move(base)},
      overlay_{where, base_.shape().size, cache},
      cache_{cache},
      saver_{std::make_unique<Saver>(*this)},
      ring_{loop, [this] { settled(); }} {}

OverlayDisk::~OverlayDisk() {
  if (overlay_.temporary()) {
    return;
  }
  class Last final : public DiskRequest {
   public:
    void done(int) noexcept override { is_done = true; }
    bool is_done = false;
  } last;
  saver_->flush(last);
  while (!last.is_done) {
    ring_.wait();
  }
}

void OverlayDisk::submit(DiskRequest& request) noexcept {
  overlay_.used();
  if (request.work.kind == Kind::Flush) {
    if (cache_ == DiskCache::Unsafe || overlay_.temporary()) {
      request.done(0);
    } else {
      saver_->flush(request);
    }
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

}  // namespace martlet::virtio
