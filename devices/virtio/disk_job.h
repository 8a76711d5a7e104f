#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/disk.h"
#include "devices/virtio/disk_file.h"
#include "devices/virtio/uring.h"

namespace martlet::virtio {

/// Does one piece of work on an image to its end: what the kernel did in part is continued, and what the
/// file system cannot do is done another way. Reusable, and busy until done() was called.
class DiskJob : private Uring::Operation {
 public:
  DiskJob() = default;
  DiskJob(const DiskJob&) = delete;
  DiskJob& operator=(const DiskJob&) = delete;

  /// `file`, `cancelled` and what the buffers point at live until done(); the list of buffers is copied.
  void start(Uring& ring, const DiskFile& file, const DiskRequest::Work& work, const bool& cancelled) noexcept;

 protected:
  ~DiskJob() = default;

 private:
  virtual void done(int error) noexcept = 0;

  void finished(std::int32_t result) noexcept final;
  void issue() noexcept;
  void issue_zeroes() noexcept;
  void advance(std::size_t bytes) noexcept;
  [[nodiscard]] bool try_otherwise(int error) noexcept;

  /// How Zero and ZeroUnmap are done, the best way first.
  enum class Way { Punch, ZeroRange, Write };

  Uring* ring_ = nullptr;
  const DiskFile* file_ = nullptr;
  const bool* cancelled_ = nullptr;
  DiskRequest::Kind kind_ = DiskRequest::Kind::Read;
  std::uint64_t offset_ = 0;
  std::uint64_t left_ = 0;  // bytes
  std::vector<iovec> buffers_;
  std::size_t first_ = 0;  // of buffers_ that has something left
  Way way_ = Way::Punch;
  bool buffered_only_ = false;  // the kernel refused it with O_DIRECT
  unsigned retries_ = 0;
};

/// A flush failed. The kernel forgets what it could not write and reports it once, so no later flush may succeed: it
/// would acknowledge writes that are lost.
class LostWrites {
 public:
  /// A flush ended with `error`, or 0.
  void flushed(int error) noexcept;
  /// Of all later flushes; or 0.
  [[nodiscard]] int error() const noexcept { return error_; }

 private:
  int error_ = 0;
};

}  // namespace martlet::virtio
