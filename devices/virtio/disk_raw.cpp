#include "devices/virtio/disk_raw.h"

#include <utility>

namespace martlet::virtio {

class RawDisk::Job final : public DiskJob {
 public:
  explicit Job(RawDisk& disk) : disk_{disk} {}

  void begin(DiskRequest& request) noexcept {
    request_ = &request;
    start(disk_.ring_, disk_.file_, request.work, request.cancelled);
  }

 private:
  void done(int error) noexcept override {
    auto& request = *std::exchange(request_, nullptr);
    disk_.idle_.push_back(this);
    if (request.work.kind == DiskRequest::Kind::Flush) {
      disk_.lost_writes_.flushed(error);
    }
    request.done(error);
  }

  RawDisk& disk_;
  DiskRequest* request_ = nullptr;
};

RawDisk::RawDisk(EventLoop& loop, DiskFile file, DiskCache cache)
    : file_{std::move(file)}, cache_{cache}, ring_{loop, [this] { settled(); }} {}

RawDisk::~RawDisk() = default;

void RawDisk::submit(DiskRequest& request) noexcept {
  if (request.work.kind == DiskRequest::Kind::Flush && cache_ == DiskCache::Unsafe) {
    request.done(0);
    return;
  }
  if (request.work.kind == DiskRequest::Kind::Flush && lost_writes_.error() != 0) {
    request.done(lost_writes_.error());
    return;
  }
  if (idle_.empty()) {
    jobs_.push_back(std::make_unique<Job>(*this));
    idle_.push_back(jobs_.back().get());
  }
  auto* const job = idle_.back();
  idle_.pop_back();
  job->begin(request);
}

}  // namespace martlet::virtio
