#include "net/frame_batch.h"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "vmm/base/fd.h"

namespace martlet {
namespace {

constexpr unsigned kEntries = 32;
constexpr std::size_t kMostFrames = kEntries - 1;  // and the request that cancels

// One thread's ring may come to lie where another's was. The kernel orders that; ThreadSanitizer, which does not see
// liburing's system calls, has it from this counter.
std::atomic<unsigned> rings{0};

}  // namespace

std::unique_ptr<FrameBatch> FrameBatch::make() {
  std::unique_ptr<FrameBatch> batch{new FrameBatch};
  io_uring_params params{};
  params.flags = IORING_SETUP_COOP_TASKRUN;  // as old as what follows
  if (::io_uring_queue_init_params(kEntries, &batch->ring_, &params) != 0) {
    return nullptr;
  }
  rings.fetch_add(1, std::memory_order_acquire);
  batch->works_ = true;
  // A kernel that does not know how to cancel by descriptor says so.
  auto* const entry = ::io_uring_get_sqe(&batch->ring_);
  ::io_uring_prep_cancel_fd(entry, batch->ring_.ring_fd, IORING_ASYNC_CANCEL_ALL);
  io_uring_cqe* answer = nullptr;
  if (::io_uring_submit_and_wait(&batch->ring_, 1) != 1 || ::io_uring_peek_cqe(&batch->ring_, &answer) != 0 ||
      answer->res < 0) {
    return nullptr;
  }
  ::io_uring_cqe_seen(&batch->ring_, answer);
  return batch;
}

FrameBatch::~FrameBatch() {
  if (works_) {
    rings.fetch_sub(1, std::memory_order_release);
    ::io_uring_queue_exit(&ring_);
  }
}

void FrameBatch::read(int fd, std::span<NetBackend::Transfer> transfers) noexcept {
  carry_out(IORING_OP_READV, fd, transfers);
}

void FrameBatch::write(int fd, std::span<NetBackend::Transfer> transfers) noexcept {
  carry_out(IORING_OP_WRITEV, fd, transfers);
}

void FrameBatch::carry_out(io_uring_op operation, int fd, std::span<NetBackend::Transfer> transfers) noexcept {
  while (!transfers.empty()) {
    const auto now = transfers.first(std::min(transfers.size(), kMostFrames));
    for (auto& transfer : now) {
      auto* const entry = ::io_uring_get_sqe(&ring_);
      ::io_uring_prep_rw(operation, entry, fd, transfer.vectors.data(), static_cast<unsigned>(transfer.vectors.size()),
                         0);
      ::io_uring_sqe_set_data(entry, &transfer);
    }
    finish(fd, now);
    transfers = transfers.subspan(now.size());
  }
}

/// Whether io_uring waits for a file that is O_NONBLOCK differs from kernel to kernel: the last request of the
/// same submission cancels those that do.
void FrameBatch::finish(int fd, std::span<NetBackend::Transfer> transfers) noexcept {
  auto* const cancel = ::io_uring_get_sqe(&ring_);
  ::io_uring_prep_cancel_fd(cancel, fd, IORING_ASYNC_CANCEL_ALL);
  ::io_uring_sqe_set_data(cancel, nullptr);
  // Until all of them are back, for they hold the guest's memory. What fails here (a signal, a shortage of memory)
  // passes.
  for (auto left = static_cast<unsigned>(transfers.size()) + 1; left != 0;) {
    ::io_uring_submit_and_wait(&ring_, left);
    io_uring_cqe* entry = nullptr;
    for (; ::io_uring_peek_cqe(&ring_, &entry) == 0; --left) {
      if (auto* const transfer = static_cast<NetBackend::Transfer*>(::io_uring_cqe_get_data(entry))) {
        transfer->result = entry->res == -ECANCELED ? -EAGAIN : entry->res;
      }
      ::io_uring_cqe_seen(&ring_, entry);
    }
  }
}

}  // namespace martlet
