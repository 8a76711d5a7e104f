#pragma once
// A disk in memory that answers when it is told to, and fails when it is told to.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>

#include "devices/virtio/disk.h"

namespace martlet::virtio {

class FakeDisk final : public Disk {
 public:
  enum class Answers {
    AtOnce,  ///< within submit()
    Later,   ///< by answer() or wait()
  };

  FakeDisk(std::size_t size, Answers answers) : bytes(size), answers_{answers} {}

  std::vector<std::byte> bytes;
  std::vector<DiskRequest::Kind> kinds{};  ///< of all requests, in their order
  unsigned commits = 0;
  unsigned cancelled = 0;             ///< requests that were, when they were answered
  int error = 0;                      ///< of all answers from now on
  std::function<void()> meanwhile{};  ///< what the driver does while the disk is at it

  [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
  /// Answers the oldest request that waits.
  void answer() {
    auto& request = *waiting_.front();
    waiting_.pop_front();
    finish(request);
    settled();
  }

  [[nodiscard]] DiskShape shape() const noexcept override { return {.size = bytes.size()}; }
  void submit(DiskRequest& request) noexcept override {
    kinds.push_back(request.work.kind);
    if (answers_ == Answers::AtOnce) {
      finish(request);
    } else {
      waiting_.push_back(&request);
    }
  }
  void commit() noexcept override {
    ++commits;
    if (meanwhile) {
      meanwhile();
    }
  }
  void wait() noexcept override {
    if (!waiting_.empty()) {
      answer();
    }
  }

 private:
  void finish(DiskRequest& request) noexcept {
    cancelled += request.cancelled ? 1U : 0U;
    if (error == 0) {
      carry_out(request.work);
    }
    request.done(error);
  }
  void carry_out(const DiskRequest::Work& work) noexcept {
    using Kind = DiskRequest::Kind;
    if (work.kind == Kind::Flush) {
      return;
    }
    if (work.offset > bytes.size() || work.length > bytes.size() - work.offset) {
      std::abort();  // the device let a request through that it must not
    }
    auto at = bytes.begin() + static_cast<std::ptrdiff_t>(work.offset);
    if (work.kind != Kind::Read && work.kind != Kind::Write) {
      std::fill_n(at, work.length, std::byte{0});
      return;
    }
    for (const auto& buffer : work.buffers) {
      auto* const memory = static_cast<std::byte*>(buffer.iov_base);
      if (work.kind == Kind::Read) {
        std::copy_n(at, buffer.iov_len, memory);
      } else {
        std::copy_n(memory, buffer.iov_len, at);
      }
      at += static_cast<std::ptrdiff_t>(buffer.iov_len);
    }
  }

  Answers answers_;
  std::deque<DiskRequest*> waiting_;
};

}  // namespace martlet::virtio
