#pragma once

#include <liburing.h>

#include <memory>
#include <span>

#include "net/backend.h"

namespace martlet {

/// Reads or writes several frames of a descriptor by one system call. It begins them in order, each does at once
/// what it can, and what would have to wait is cancelled: its result is EAGAIN, and nothing is in flight when a
/// call returns. One thread at a time.
class FrameBatch {
 public:
  /// Null when the host has no io_uring, or none that can cancel by descriptor (Linux 5.19).
  [[nodiscard]] static std::unique_ptr<FrameBatch> make();
  FrameBatch(const FrameBatch&) = delete;
  FrameBatch& operator=(const FrameBatch&) = delete;
  ~FrameBatch();

  void read(int fd, std::span<NetBackend::Transfer> transfers) noexcept;
  void write(int fd, std::span<NetBackend::Transfer> transfers) noexcept;

 private:
  FrameBatch() = default;
  void carry_out(io_uring_op operation, int fd, std::span<NetBackend::Transfer> transfers) noexcept;
  void finish(int fd, std::span<NetBackend::Transfer> transfers) noexcept;

  io_uring ring_{};
  bool works_ = false;  // else there is no ring
};

}  // namespace martlet
