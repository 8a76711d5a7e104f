#include "devices/virtio/disk_job.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "vmm/base/zeroes.h"

namespace martlet::virtio {
namespace {

using Kind = DiskRequest::Kind;

constexpr unsigned kMaxRetries = 100;

constexpr std::uint64_t kZeroesAtOnce = 1U << 20U;

}  // namespace

void DiskJob::start(Uring& ring, const DiskFile& file, const DiskRequest::Work& work, const bool& cancelled) noexcept {
  ring_ = &ring;
  file_ = &file;
  cancelled_ = &cancelled;
  kind_ = work.kind;
  offset_ = work.offset;
  left_ = work.length;
  buffers_.assign(work.buffers.begin(), work.buffers.end());
  first_ = 0;
  way_ = kind_ == Kind::ZeroUnmap ? Way::Punch : Way::ZeroRange;
  buffered_only_ = false;
  retries_ = 0;
  if (left_ == 0 && kind_ != Kind::Flush) {
    done(0);
    return;
  }
  issue();
}

void DiskJob::issue() noexcept {
  switch (kind_) {
    case Kind::Read:
    case Kind::Write: {
      const auto rest = std::span<const iovec>{buffers_}.subspan(first_);
      const auto now = rest.first(std::min<std::size_t>(rest.size(), IOV_MAX));
      const int fd = buffered_only_ ? file_->buffered() : file_->fd_for(now, offset_);
      if (kind_ == Kind::Read) {
        ring_->read(*this, fd, now, offset_);
      } else {
        ring_->write(*this, fd, now, offset_);
      }
      return;
    }
    case Kind::Flush:
      ring_->sync_data(*this, file_->buffered());
      return;
    case Kind::Discard:
      ring_->allocate(*this, file_->buffered(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, left_);
      return;
    case Kind::Zero:
    case Kind::ZeroUnmap:
      issue_zeroes();
      return;
  }
}

void DiskJob::issue_zeroes() noexcept {
  switch (way_) {
    case Way::Punch:
      ring_->allocate(*this, file_->buffered(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, left_);
      return;
    case Way::ZeroRange:
      ring_->allocate(*this, file_->buffered(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset_, left_);
      return;
    case Way::Write:
      buffers_.clear();
      first_ = 0;
      for (auto bytes = std::min(left_, kZeroesAtOnce); bytes != 0; bytes -= buffers_.back().iov_len) {
        buffers_.push_back(zeroes_to_write(bytes));
      }
      ring_->write(*this, file_->buffered(), buffers_, offset_);
      return;
  }
}

/// Whether there is another way to do what failed with `error`; takes it.
bool DiskJob::try_otherwise(int error) noexcept {
  if (error == EINTR || error == EAGAIN) {
    return ++retries_ < kMaxRetries;
  }
  const bool transfer = kind_ == Kind::Read || kind_ == Kind::Write;
  if (transfer && error == EINVAL && !buffered_only_) {
    buffered_only_ = true;
    return true;
  }
  const bool zero = kind_ == Kind::Zero || kind_ == Kind::ZeroUnmap;
  if (zero && way_ != Way::Write && (error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV)) {
    way_ = way_ == Way::Punch ? Way::ZeroRange : Way::Write;
    return true;
  }
  return false;
}

void DiskJob::finished(std::int32_t result) noexcept {
  if (result < 0) {
    if (!*cancelled_ && try_otherwise(-result)) {
      issue();
    } else if (kind_ == Kind::Discard && (result == -EOPNOTSUPP || result == -ENODEV || result == -EINVAL)) {
      done(0);  // a hint that this file system has no use for
    } else {
      done(-result);
    }
    return;
  }
  const bool zeroing = (kind_ == Kind::Zero || kind_ == Kind::ZeroUnmap) && way_ == Way::Write;
  if (kind_ != Kind::Read && kind_ != Kind::Write && !zeroing) {
    done(0);
    return;
  }
  if (result == 0) {
    done(EIO);  // the image ends before its size: somebody cut it
    return;
  }
  advance(static_cast<std::size_t>(result));
  if (left_ == 0) {
    done(0);
  } else if (*cancelled_) {
    done(ECANCELED);
  } else {
    issue();
  }
}

/// The kernel did `bytes` of what is left.
void DiskJob::advance(std::size_t bytes) noexcept {
  bytes = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, left_));
  offset_ += bytes;
  left_ -= bytes;
  while (bytes != 0 && first_ < buffers_.size()) {
    auto& buffer = buffers_[first_];
    const auto part = std::min(bytes, buffer.iov_len);
    buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + part;
    buffer.iov_len -= part;
    bytes -= part;
    first_ += buffer.iov_len == 0 ? 1 : 0;
  }
}

void LostWrites::flushed(int error) noexcept {
  // Those tell that it did not take place, as when a queue is reset meanwhile.
  if (error != EINTR && error != EAGAIN && error != ECANCELED) {
    error_ = error != 0 ? error : error_;
  }
}

}  // namespace martlet::virtio
