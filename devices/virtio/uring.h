#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>

#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// An io_uring on an event loop. What is asked for collects until submit(), which begins all of it with one
/// system call and finishes at once what needed no waiting. On the loop's thread only.
class Uring {
 public:
  /// Something in flight. Lives, with what it points at, until finished().
  class Operation {
   public:
    /// `result` as the system call would return it, or a negative errno value.
    virtual void finished(std::int32_t result) noexcept = 0;

   protected:
    ~Operation() = default;
  };

  /// `settled` is called after each batch of finished() calls. Throws HostError when the host has no io_uring.
  Uring(EventLoop& loop, std::function<void()> settled);
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;
  /// Waits for what is in flight.
  ~Uring();

  void read(Operation& operation, int fd, std::span<const iovec> into, std::uint64_t offset) noexcept;
  void write(Operation& operation, int fd, std::span<const iovec> from, std::uint64_t offset) noexcept;
  void sync_data(Operation& operation, int fd) noexcept;
  void allocate(Operation& operation, int fd, int mode, std::uint64_t offset, std::uint64_t length) noexcept;

  /// From within finished() or `settled` it has no effect: the batch that is under way submits in the end.
  void submit() noexcept;
  /// Blocks until at least one operation finished; returns at once when there is none.
  void wait() noexcept;

  /// How many system calls it took so far.
  [[nodiscard]] std::uint64_t system_calls() const noexcept { return system_calls_; }

 private:
  void ask(Operation& operation, io_uring_sqe& entry);
  void enter(unsigned wait_for) noexcept;
  bool reap() noexcept;
  void turn() noexcept;

  EventLoop& loop_;
  std::function<void()> settled_;
  io_uring ring_{};
  Fd again_ = make_eventfd();  // the kernel took not all of a batch
  std::deque<io_uring_sqe> waiting_;
  std::size_t in_ring_ = 0;  // never more than it has room for completions
  std::uint64_t system_calls_ = 0;
  bool busy_ = false;  // inside turn()
};

}  // namespace martlet::virtio
