#include "vmm/base/event_loop.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {

EventLoop::EventLoop() : epoll_{check(::epoll_create1(EPOLL_CLOEXEC), "epoll")} {
  watch(called_.get(), EPOLLIN, [this](std::uint32_t) {
    drain_counter(called_.get());
    std::unique_lock lock{mutex_};
    if (const auto trouble = do_calls(lock)) {
      std::rethrow_exception(trouble);
    }
  });
}

bool EventLoop::watch(int fd, std::uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    if (errno == EPERM) {
      return false;
    }
    fail_errno(errno, "epoll: cannot watch a descriptor");
  }
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  return true;
}

void EventLoop::change(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  check(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event), "epoll: cannot change what is watched");
}

void EventLoop::unwatch(int fd) {
  if (handlers_.erase(fd) != 0) {
    check(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr), "epoll: cannot stop watching");
  }
}

void EventLoop::call(const std::function<void()>& task) {
  std::unique_lock lock{mutex_};
  if (worker_ == std::this_thread::get_id()) {
    lock.unlock();
    task();
    return;
  }
  Call mine{task};
  calls_.push_back(&mine);
  if (running_) {
    signal_eventfd(called_.get());
  } else if (worker_ == std::thread::id{}) {
    worker_ = std::this_thread::get_id();
    const auto trouble = do_calls(lock);
    worker_ = {};
    changed_.notify_all();
    if (trouble) {
      std::rethrow_exception(trouble);
    }
  }  // else somebody does calls right now, ours among them
  changed_.wait(lock, [&] { return mine.done; });
}

/// A task that throws is done all the same: whoever waits for it is let go. Returns what the last one threw.
std::exception_ptr EventLoop::do_calls(std::unique_lock<std::mutex>& lock) noexcept {
  std::exception_ptr trouble;
  while (!calls_.empty()) {
    auto* const call = calls_.front();
    calls_.erase(calls_.begin());
    lock.unlock();
    try {
      call->task();
    } catch (...) {
      trouble = std::current_exception();
    }
    lock.lock();
    call->done = true;
  }
  changed_.notify_all();
  return trouble;
}

/// While it lives, calls wait for the loop; when it goes, those that still wait are done.
class EventLoop::Running {
 public:
  explicit Running(EventLoop& loop) : loop_{loop} {
    std::unique_lock lock{loop_.mutex_};
    loop_.changed_.wait(lock, [&] { return loop_.worker_ == std::thread::id{}; });
    loop_.running_ = true;
    loop_.worker_ = std::this_thread::get_id();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    std::unique_lock lock{loop_.mutex_};
    loop_.running_ = false;
    static_cast<void>(loop_.do_calls(lock));  // the loop ends as it is
    loop_.worker_ = {};
  }

 private:
  EventLoop& loop_;
};

void EventLoop::run() {
  const Running running{*this};
  while (!stopped_) {
    std::array<epoll_event, 16> events{};
    const int ready = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (ready < 0) {
      if (errno == EINTR) {
        continue;
      }
      fail_errno(errno, "epoll_wait");
    }
    for (int i = 0; i < ready && !stopped_; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      const auto found = handlers_.find(event.data.fd);
      if (found != handlers_.end()) {        // an earlier handler of this batch may have unwatched it
        const auto handler = found->second;  // and this one may unwatch itself while it runs
        (*handler)(event.events);
      }
    }
  }
  stopped_ = false;
}

Timer::Timer(EventLoop& loop, std::function<void()> expired)
    : loop_{loop}, fd_{check(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd")} {
  loop_.watch(fd_.get(), EPOLLIN, [fd = fd_.get(), expired = std::move(expired)](std::uint32_t) {
    if (drain_counter(fd) != 0) {
      expired();
    }
  });
}

Timer::~Timer() {
  try {
    loop_.unwatch(fd_.get());
  } catch (const HostError&) {  // the descriptor is ours and open: nothing to do if epoll disagrees
  }
}

namespace {

timespec to_timespec(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {.tv_sec = seconds.count(), .tv_nsec = (time - seconds).count()};
}

void set_timer(int fd, std::chrono::nanoseconds first, std::chrono::nanoseconds period) {
  const itimerspec spec{.it_interval = to_timespec(period), .it_value = to_timespec(first)};
  check(::timerfd_settime(fd, 0, &spec, nullptr), "timerfd_settime");
}

}  // namespace

void Timer::start_once(std::chrono::nanoseconds delay) {
  set_timer(fd_.get(), std::max(delay, std::chrono::nanoseconds{1}), {});
}
void Timer::start_periodic(std::chrono::nanoseconds period) { set_timer(fd_.get(), period, period); }
void Timer::cancel() { set_timer(fd_.get(), {}, {}); }

}  // namespace martlet
