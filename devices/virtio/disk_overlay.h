#pragma once

#include <memory>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_file.h"
#include "devices/virtio/overlay_file.h"
#include "devices/virtio/uring.h"

namespace martlet::virtio {

/// A base that is only read, and an overlay that all writes go to. With one bit for each sector a write
/// never needs to read first.
class OverlayDisk final : public Disk {
 public:
  /// `base` is open for reading; `where` as for OverlayFile. Throws HostError.
  OverlayDisk(EventLoop& loop, DiskFile base, const std::string& where, DiskCache cache);
  /// Saves the map, so that what was written is there next time.
  ~OverlayDisk() override;

  [[nodiscard]] DiskShape shape() const noexcept override { return base_.shape(); }
  void submit(DiskRequest& request) noexcept override;
  void commit() noexcept override { ring_.submit(); }
  void wait() noexcept override { ring_.wait(); }

 private:
  class Task;
  class Saver;

  DiskFile base_;
  OverlayFile overlay_;
  DiskCache cache_;
  std::vector<std::unique_ptr<Task>> tasks_;  // all there ever were
  std::vector<Task*> idle_;
  std::unique_ptr<Saver> saver_;
  Uring ring_;  // goes first: it waits for the tasks
};

}  // namespace martlet::virtio
