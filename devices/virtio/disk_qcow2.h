#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_options.h"
#include "devices/virtio/qcow2_saver.h"
#include "devices/virtio/qcow2_stack.h"

namespace martlet::virtio {

/// A qcow2 image. Data goes to where it stays as soon as it is written, tables when a flush asks for it or too
/// many have changed: whatever ends the host, the image is one that was, at the last flush or later.
class Qcow2Disk final : public Disk {
 public:
  Qcow2Disk(std::unique_ptr<Qcow2Stack> stack, DiskAccess access, DiskCache cache);
  /// Saves its tables.
  ~Qcow2Disk() override;

  [[nodiscard]] DiskShape shape() const noexcept override { return {.size = size_, .physical_block = 4096}; }
  void begin() override;
  void submit(DiskRequest& request) noexcept override;
  void commit() noexcept override { stack_->commit(); }
  void wait() noexcept override { stack_->wait(); }

 private:
  class Task;

  /// Clusters of the disk that one request moves: no other may change them meanwhile.
  void lock(const ClusterRun& run) { locks_.push_back(run); }
  void unlock(const ClusterRun& run) noexcept;
  [[nodiscard]] std::uint64_t unlocked(std::uint64_t cluster, std::uint64_t count) const noexcept;

  void save_if_crowded() noexcept;
  void saved(std::vector<ClusterRun> left, int error) noexcept;
  void release_left() noexcept;

  std::unique_ptr<Qcow2Stack> stack_;
  std::uint64_t size_;
  DiskAccess access_;
  DiskCache cache_;
  std::vector<ClusterRun> locks_;  // a handful
  int save_error_ = 0;             // of the latest round

  // Clusters that nothing leads to any more are free once no request is under way that knew them.
  std::vector<ClusterRun> left_;       // next
  std::vector<ClusterRun> releasing_;  // when the other generation's requests are done
  std::array<std::size_t, 2> under_way_{};
  std::size_t generation_ = 0;

  std::vector<std::unique_ptr<Task>> tasks_;  // all there ever were
  std::vector<Task*> idle_;
  Qcow2Saver saver_;
};

}  // namespace martlet::virtio
