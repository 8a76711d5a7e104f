#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "vmm/base/fd.h"

namespace martlet {

/// Waits for file descriptors (epoll) and calls their handlers, all on the thread that calls run().
/// It never waits for a vCPU. Without events it sleeps: no ticks of its own.
class EventLoop {
 public:
  using Handler = std::function<void(std::uint32_t events)>;

  EventLoop();

  /// Calls `handler` with the EPOLL* bits whenever `fd` has `events`. Before or inside run().
  /// False when the kernel cannot wait for this kind of file (EPERM: a regular file is always ready).
  bool watch(int fd, std::uint32_t events, Handler handler);
  /// Watches for other events from now on.
  void change(int fd, std::uint32_t events);
  /// May be called from the handler itself.
  void unwatch(int fd);

  /// Does `task` on the loop's thread and returns when it is done. From any thread: the loop never waits for
  /// the caller. While nobody is inside run(), before or after, it is done here and now, one at a time. What it
  /// throws ends run(), or comes out here if it was done here.
  void call(const std::function<void()>& task);

  /// Handles events until stop(); may run again. Throws what a handler throws.
  void run();
  /// Ends run() after the current handler. From a handler, or before run().
  void stop() noexcept { stopped_ = true; }

 private:
  struct Call {
    const std::function<void()>& task;
    bool done = false;
  };
  class Running;

  [[nodiscard]] std::exception_ptr do_calls(std::unique_lock<std::mutex>& lock) noexcept;

  Fd epoll_;
  std::map<int, std::shared_ptr<Handler>> handlers_;
  bool stopped_ = false;

  Fd called_ = make_eventfd();
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Call*> calls_;
  bool running_ = false;
  std::thread::id worker_;  // who may touch what the loop's handlers touch
};

/// A one-shot or periodic timer on an event loop. Nothing ticks while it is not set.
class Timer {
 public:
  Timer(EventLoop& loop, std::function<void()> expired);
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer();

  void start_once(std::chrono::nanoseconds delay);
  void start_periodic(std::chrono::nanoseconds period);
  void cancel();

 private:
  EventLoop& loop_;
  Fd fd_;
};

}  // namespace martlet
