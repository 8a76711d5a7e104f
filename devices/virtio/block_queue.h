#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/block_request.h"
#include "devices/virtio/disk.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/rate_limit.h"

namespace martlet::virtio {

/// What the queues of one block device share.
struct BlockShared {
  /// So many bytes may be moved, then others of the loop get their turn: disks do some of it within submit() and
  /// commit(), and a request may have 4 GiB.
  static constexpr std::uint64_t kBytesATurn = 64U << 20U;

  Disk& disk;
  Throttle& throttle;
  std::string serial{};
  BlockRequest::Limits limits{};
  /// The driver cannot flush, or asked not to need to: writes are answered when they are on the disk.
  std::atomic<bool> write_through = false;
  std::uint64_t bytes_left = kBytesATurn;  ///< of this turn
  /// A queue has more to do, but others of the loop come first: begins a new turn soon, and calls settle().
  std::function<void()> later{};
};

/// One queue of a block device: takes requests from the ring, has the disk do them, and answers. On the event
/// loop's thread only.
class BlockQueue {
 public:
  BlockQueue(BlockShared& shared, std::unique_ptr<VirtQueue> ring);
  BlockQueue(const BlockQueue&) = delete;
  BlockQueue& operator=(const BlockQueue&) = delete;
  /// Requests in flight are cancelled, or waited for; those that wait go back with length 0.
  ~BlockQueue();

  /// Takes what waits in the ring, all of it as one batch for the disk.
  void service() noexcept;
  /// After a batch of requests was done: tells the driver, and goes on if something had to wait.
  void settle() noexcept;

 private:
  class Slot;

  enum class Taken { One, None, Wait };
  [[nodiscard]] Taken take() noexcept;
  void serve() noexcept;
  void tell() noexcept;
  [[nodiscard]] Slot* idle_slot();

  BlockShared& shared_;
  std::unique_ptr<VirtQueue> ring_;
  std::vector<std::unique_ptr<Slot>> slots_;  // all there ever were
  std::vector<Slot*> idle_;
  std::vector<Slot*> unfinished_;  // begun, and nothing of them is at the disk now
  Slot* throttled_ = nullptr;      // taken from the ring, but not begun
  std::size_t in_flight_ = 0;
  bool waits_ = false;      // there is more in the ring, and no notification to be expected
  std::size_t untold_ = 0;  // answers that the driver was not interrupted for
  bool serving_ = false;    // which ends with telling it
  bool stopping_ = false;
};

}  // namespace martlet::virtio
