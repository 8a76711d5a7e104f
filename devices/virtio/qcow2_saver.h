#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/qcow2_stack.h"

namespace martlet::virtio {

/// Saves an image's tables, one round at a time, and answers flushes; who comes during a round shares the next.
class Qcow2Saver : private Qcow2Stack::Transfer {
 public:
  /// After each round: what it left, or why it failed.
  using Saved = std::function<void(std::vector<ClusterRun> left, int error)>;
  Qcow2Saver(Qcow2Stack& stack, Saved saved) : stack_{stack}, saved_{std::move(saved)} {}

  void flush(DiskRequest& request) noexcept;
  /// A round that nobody waits for, unless there is one.
  void start() noexcept;
  [[nodiscard]] bool busy() const noexcept { return busy_; }

 private:
  void begin_round() noexcept;
  void run(const Work& transfer) noexcept;
  void next() noexcept;
  void transferred(int error) noexcept override;
  void end(int error) noexcept;

  Qcow2Stack& stack_;
  Saved saved_;
  bool busy_ = false;
  std::vector<DiskRequest*> waiting_;
  std::vector<DiskRequest*> served_;  // by the round under way
  Qcow2Image::Changes changes_;
  std::size_t group_ = 0;
  std::size_t piece_ = 0;
  bool synced_ = false;  // nothing was written since
  iovec buffer_{};
};

}  // namespace martlet::virtio
