#pragma once

#include <memory>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_file.h"
#include "devices/virtio/disk_job.h"
#include "devices/virtio/uring.h"

namespace martlet::virtio {

/// An image whose bytes are the disk's.
class RawDisk final : public Disk {
 public:
  RawDisk(EventLoop& loop, DiskFile file, DiskCache cache);
  ~RawDisk() override;

  [[nodiscard]] DiskShape shape() const noexcept override { return file_.shape(); }
  void refresh() noexcept override { file_.refresh(); }
  void submit(DiskRequest& request) noexcept override;
  void commit() noexcept override { ring_.submit(); }
  void wait() noexcept override { ring_.wait(); }

  [[nodiscard]] std::uint64_t system_calls() const noexcept { return ring_.system_calls(); }

 private:
  class Job;

  DiskFile file_;
  DiskCache cache_;
  LostWrites lost_writes_;
  std::vector<std::unique_ptr<Job>> jobs_;  // all there ever were: as many as were in flight at once
  std::vector<Job*> idle_;
  Uring ring_;  // goes first: it waits for the jobs
};

}  // namespace martlet::virtio
