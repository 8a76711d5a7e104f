#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

namespace martlet::virtio {

/// One request to a disk. It, and its buffers, live until done() was called: exactly once, maybe before
/// Disk::submit() returns.
class DiskRequest {
 public:
  enum class Kind {
    Read,
    Write,
    Flush,      ///< all writes that were done before reach the disk, and stay
    Discard,    ///< what was there is not needed any more
    Zero,       ///< reads as zeroes from now on
    ZeroUnmap,  ///< the same, and the room may be given back
  };
  struct Work {
    Kind kind = Kind::Read;
    std::uint64_t offset = 0;  ///< bytes, like `length` a multiple of 512 and inside the disk
    std::uint64_t length = 0;  ///< for Read and Write that of all `buffers`
    std::span<const iovec> buffers{};
  };

  DiskRequest() = default;
  DiskRequest(const DiskRequest&) = delete;
  DiskRequest& operator=(const DiskRequest&) = delete;

  Work work{};
  /// Nobody waits for its result any more: a request of many parts may end after the part in flight.
  bool cancelled = false;

  /// `error` is an errno value, 0 when all of it is done.
  virtual void done(int error) noexcept = 0;

 protected:
  ~DiskRequest() = default;
};

/// A disk's size and grain, as far as its image decides.
struct DiskShape {
  std::uint64_t size = 0;              ///< bytes, a multiple of 512
  std::uint32_t logical_block = 512;   ///< what it writes without reading first, as it says
  std::uint32_t physical_block = 512;  ///< what it writes so in truth
};

/// A disk at the host. On the event loop's thread only. Requests overlap in any order, as on real disks.
class Disk {
 public:
  Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  virtual ~Disk() = default;

  [[nodiscard]] virtual DiskShape shape() const noexcept = 0;
  /// Once, before the first request, and as late as can be: what a writer changes first. Throws HostError.
  virtual void begin() {}
  /// Looks again how large the image is.
  virtual void refresh() noexcept {}

  /// Takes a request; it may wait for commit().
  virtual void submit(DiskRequest& request) noexcept = 0;
  /// Ends a batch: what was submitted begins now, at the price of one system call.
  virtual void commit() noexcept = 0;
  /// Blocks until at least one submitted request is done.
  virtual void wait() noexcept = 0;

  /// Called after each batch of done() calls that did not come from within submit().
  void on_settled(std::function<void()> settled) { settled_ = std::move(settled); }

 protected:
  void settled() const {
    if (settled_) {
      settled_();
    }
  }

 private:
  std::function<void()> settled_;
};

}  // namespace martlet::virtio
