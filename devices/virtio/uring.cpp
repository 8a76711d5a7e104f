#include "devices/virtio/uring.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr unsigned kEntries = 256;       // begun by one system call
constexpr unsigned kCompletions = 1024;  // in flight at once; more would wait, not get lost
// So often in a row one turn looks for what finished meanwhile, then others of the loop get theirs.
constexpr int kRounds = 4;

}  // namespace

Uring::Uring(EventLoop& loop, std::function<void()> settled) : loop_{loop}, settled_{std::move(settled)} {
  // Without COOP_TASKRUN (Linux before 5.19) each completion interrupts the loop's thread: slower, not wrong.
  int error = 0;
  for (const unsigned flags : {IORING_SETUP_COOP_TASKRUN, 0U}) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE;
    params.cq_entries = kCompletions;
    error = -::io_uring_queue_init_params(kEntries, &ring_, &params);
    if (error != EINVAL) {
      break;
    }
  }
  if (error != 0) {
    throw HostError{
        fmt::format("io_uring: {}; disks need Linux 5.6 or newer with sysctl kernel.io_uring_disabled=0, and a "
                    "container whose seccomp profile allows it",
                    std::strerror(error))};
  }
  // The ring's own descriptor is readable while completions wait: no eventfd to drain for each batch.
  loop_.watch(ring_.ring_fd, EPOLLIN, [this](std::uint32_t) { turn(); });
  loop_.watch(again_.get(), EPOLLIN, [this](std::uint32_t) {
    drain_counter(again_.get());
    turn();
  });
}

Uring::~Uring() {
  settled_ = nullptr;
  while (in_ring_ != 0 || !waiting_.empty()) {
    wait();
  }
  try {
    loop_.unwatch(ring_.ring_fd);
    loop_.unwatch(again_.get());
  } catch (const HostError&) {  // both are ours and open: nothing to do if epoll disagrees
  }
  ::io_uring_queue_exit(&ring_);
}

void Uring::read(Operation& operation, int fd, std::span<const iovec> into, std::uint64_t offset) noexcept {
  io_uring_sqe entry{};
  ::io_uring_prep_readv(&entry, fd, into.data(), static_cast<unsigned>(into.size()), offset);
  ask(operation, entry);
}

void Uring::write(Operation& operation, int fd, std::span<const iovec> from, std::uint64_t offset) noexcept {
  io_uring_sqe entry{};
  ::io_uring_prep_writev(&entry, fd, from.data(), static_cast<unsigned>(from.size()), offset);
  ask(operation, entry);
}

void Uring::sync_data(Operation& operation, int fd) noexcept {
  io_uring_sqe entry{};
  ::io_uring_prep_fsync(&entry, fd, IORING_FSYNC_DATASYNC);
  ask(operation, entry);
}

void Uring::allocate(Operation& operation, int fd, int mode, std::uint64_t offset, std::uint64_t length) noexcept {
  io_uring_sqe entry{};
  ::io_uring_prep_fallocate(&entry, fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
  ask(operation, entry);
}

void Uring::ask(Operation& operation, io_uring_sqe& entry) {
  ::io_uring_sqe_set_data(&entry, &operation);
  waiting_.push_back(entry);
}

void Uring::submit() noexcept {
  if (!busy_) {
    turn();
  }
}

void Uring::wait() noexcept {
  if (busy_ || (in_ring_ == 0 && waiting_.empty())) {
    return;
  }
  busy_ = true;
  while (!reap()) {
    enter(1);
  }
  busy_ = false;
  turn();
}

/// Begins what waits, finishes what is done, and so on: page-cache hits are done as soon as they began.
void Uring::turn() noexcept {
  busy_ = true;
  for (int round = 0; round < kRounds; ++round) {
    enter(0);
    if (!reap()) {
      break;
    }
  }
  enter(0);
  busy_ = false;
}

void Uring::enter(unsigned wait_for) noexcept {
  do {
    while (!waiting_.empty() && in_ring_ < kCompletions) {
      auto* const entry = ::io_uring_get_sqe(&ring_);
      if (entry == nullptr) {
        break;
      }
      *entry = waiting_.front();
      waiting_.pop_front();
      ++in_ring_;
    }
    const bool more = !waiting_.empty() && in_ring_ < kCompletions;
    if (::io_uring_sq_ready(&ring_) == 0 && (wait_for == 0 || more)) {
      return;
    }
    ++system_calls_;
    ::io_uring_submit_and_wait(&ring_, more ? 0 : wait_for);
    if (::io_uring_sq_ready(&ring_) != 0) {
      signal_eventfd(again_.get());  // EAGAIN, EBUSY or EINTR: it takes the rest later
      return;
    }
    if (!more) {
      return;
    }
  } while (true);
}

/// True when something finished.
bool Uring::reap() noexcept {
  bool any = false;
  std::array<io_uring_cqe*, 64> batch{};
  while (const unsigned count = ::io_uring_peek_batch_cqe(&ring_, batch.data(), batch.size())) {
    any = true;
    for (unsigned i = 0; i < count; ++i) {
      auto* const operation = static_cast<Operation*>(::io_uring_cqe_get_data(batch[i]));
      const auto result = batch[i]->res;
      --in_ring_;
      operation->finished(result);
    }
    ::io_uring_cq_advance(&ring_, count);
  }
  if (any && settled_) {
    settled_();
  }
  return any;
}

}  // namespace martlet::virtio
