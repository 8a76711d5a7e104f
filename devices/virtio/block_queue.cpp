#include "devices/virtio/block_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "devices/virtio/buffer_cursor.h"
#include "devices/virtio/disk_options.h"

namespace martlet::virtio {
namespace {

using Kind = DiskRequest::Kind;

// Answers are told of when no more requests are to be found, but no later than this: a driver that never runs dry
// has others who wait for one of them.
constexpr std::size_t kMostUntold = 16;

// What is larger goes to the disk piece by piece: what one of them costs, or makes a reset wait for, is bounded.
constexpr std::uint64_t kMostMoved = 4U << 20U;
constexpr std::uint64_t kMostOfARange = 32U << 20U;

}  // namespace

/// A request on its way.
class BlockQueue::Slot final : public DiskRequest {
 public:
  explicit Slot(BlockQueue& queue) : queue_{queue} {}

  enum class Next {
    Disk,     ///< admit() and begin()
    Nothing,  ///< it has been answered
  };
  [[nodiscard]] Next accept(DescriptorChain&& chain) noexcept {
    chain_ = std::move(chain);
    auto request =
        BlockRequest::parse(chain_->readable(), chain_->writable(), queue_.shared_.limits, std::move(request_.data));
    if (!request) {  // no room for an answer
      complete(0);
      return Next::Nothing;
    }
    request_ = std::move(*request);
    if (request_.refused) {
      answer(*request_.refused, 0);
      return Next::Nothing;
    }
    if (request_.type == BlockType::GetId) {
      answer(BlockStatus::Ok, put_serial());
      return Next::Nothing;
    }
    return Next::Disk;
  }

  /// What it may write or read. Zeroes count, for a file system may know no better than to write them.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    std::uint64_t bytes = request_.length;
    for (std::size_t i = 0; request_.type == BlockType::WriteZeroes && i < request_.range_count; ++i) {
      bytes += request_.ranges[i].length;
    }
    return bytes;
  }

  void begin() noexcept {
    ++queue_.in_flight_;
    cancelled = false;
    range_ = 0;
    done_ = 0;
    flushing_ = false;
    data_ = BufferCursor{request_.data};
    go_on();
  }

  /// Has the disk do the next piece.
  void go_on() noexcept {
    switch (flushing_ ? BlockType::Flush : request_.type) {
      case BlockType::In:
      case BlockType::Out:
        piece_ = std::min(request_.length - done_, kMostMoved);
        work = {.kind = request_.type == BlockType::In ? Kind::Read : Kind::Write,
                .offset = request_.offset + done_,
                .length = piece_,
                .buffers = cut_buffers()};
        break;
      case BlockType::Discard:
      case BlockType::WriteZeroes: {
        const auto& range = request_.ranges[range_];
        const auto zero = range.unmap == BlockRequest::Unmap::May ? Kind::ZeroUnmap : Kind::Zero;
        piece_ = std::min(range.length - done_, kMostOfARange);
        work = {.kind = request_.type == BlockType::Discard ? Kind::Discard : zero,
                .offset = range.offset + done_,
                .length = piece_};
        break;
      }
      case BlockType::Flush:
      case BlockType::GetId:
        work = {.kind = Kind::Flush};
        break;
    }
    auto& left = queue_.shared_.bytes_left;
    left -= std::min(left, piece_);
    queue_.shared_.disk.submit(*this);
  }

  /// Not begun, and never will be.
  void drop() noexcept { chain_.reset(); }
  /// It was begun, and that is all.
  void end(int error) noexcept {
    --queue_.in_flight_;
    const bool filled = error == 0 && request_.type == BlockType::In;
    answer(error == 0 ? BlockStatus::Ok : BlockStatus::IoError, filled ? request_.length : 0);
  }

 private:
  std::span<const iovec> cut_buffers() {
    if (piece_ == request_.length) {
      return request_.data;
    }
    buffers_.clear();
    data_.take(piece_, buffers_);
    return buffers_;
  }

  /// Not from here: a disk may be done within submit(), and there may be many pieces.
  void done(int error) noexcept override {
    if (error == 0 && advance()) {
      if (!cancelled) {
        queue_.unfinished_.push_back(this);
        return;
      }
      error = ECANCELED;
    }
    end(error);
  }

  /// Past the piece that is done; whether there is more.
  bool advance() noexcept {
    done_ += std::exchange(piece_, 0);
    if (flushing_) {
      return false;
    }
    if (done_ < (request_.range_count == 0 ? request_.length : request_.ranges[range_].length)) {
      return true;
    }
    if (range_ + 1 < request_.range_count) {
      ++range_;
      done_ = 0;
      return true;
    }
    const bool changes = request_.type != BlockType::In && request_.type != BlockType::Flush;
    flushing_ = changes && queue_.shared_.write_through.load(std::memory_order_relaxed);
    return flushing_;
  }

  /// Returns how many bytes of the buffer it wrote: §5.2.6, 20 of them, NUL-padded.
  std::uint64_t put_serial() const noexcept {
    std::array<char, kSerialBytes> text{};
    const auto& serial = queue_.shared_.serial;
    std::memcpy(text.data(), serial.data(), std::min(serial.size(), text.size()));
    std::size_t at = 0;
    for (const auto& buffer : request_.data) {
      const auto part = std::min(buffer.iov_len, text.size() - at);
      std::memcpy(buffer.iov_base, text.data() + at, part);
      at += part;
    }
    return at;
  }

  /// `filled`: so many bytes from the start of the writable part were written.
  void answer(BlockStatus status, std::uint64_t filled) noexcept {
    *request_.status = static_cast<std::byte>(status);
    // The length tells what may be relied on from the start on; the status byte is the last one.
    complete(static_cast<std::uint32_t>(filled + 1 == chain_->writable_bytes() ? filled + 1 : filled));
  }

  void complete(std::uint32_t written) noexcept {
    queue_.ring_->complete(std::move(*chain_), written);
    chain_.reset();
    ++queue_.untold_;
    queue_.idle_.push_back(this);
  }

  BlockQueue& queue_;
  std::optional<DescriptorChain> chain_;
  BlockRequest request_;
  std::size_t range_ = 0;    // of a Discard or WriteZeroes, in flight
  std::uint64_t done_ = 0;   // bytes of that one, or of an In or Out
  std::uint64_t piece_ = 0;  // bytes in flight
  bool flushing_ = false;    // the work is done, write-through takes the rest
  BufferCursor data_;        // what is not in flight yet
  std::vector<iovec> buffers_;
};

BlockQueue::BlockQueue(BlockShared& shared, std::unique_ptr<VirtQueue> ring)
    : shared_{shared}, ring_{std::move(ring)} {}

BlockQueue::~BlockQueue() {
  stopping_ = true;
  if (throttled_ != nullptr) {
    throttled_->drop();
  }
  for (const auto& slot : slots_) {
    slot->cancelled = true;
  }
  for (auto* const slot : std::exchange(unfinished_, {})) {
    slot->end(ECANCELED);
  }
  while (in_flight_ != 0) {
    shared_.disk.wait();
  }
}

BlockQueue::Slot* BlockQueue::idle_slot() {
  if (idle_.empty() && slots_.size() < ring_->setup().size) {
    slots_.push_back(std::make_unique<Slot>(*this));
    idle_.push_back(slots_.back().get());
  }
  return idle_.empty() ? nullptr : idle_.back();
}

BlockQueue::Taken BlockQueue::take() noexcept {
  if (!unfinished_.empty()) {
    auto* const slot = unfinished_.front();
    unfinished_.erase(unfinished_.begin());
    slot->go_on();
    return Taken::One;
  }
  auto* slot = std::exchange(throttled_, nullptr);
  if (slot == nullptr) {
    slot = idle_slot();
    if (slot == nullptr) {
      return Taken::Wait;  // more in flight than the ring has room for: only a driver that cheats gets here
    }
    auto chain = ring_->pop();
    if (!chain) {
      return Taken::None;
    }
    idle_.pop_back();
    if (slot->accept(std::move(*chain)) == Slot::Next::Nothing) {
      return Taken::One;
    }
  }
  if (!shared_.throttle.admit(slot->bytes())) {
    throttled_ = slot;
    return Taken::Wait;
  }
  slot->begin();
  return Taken::One;
}

void BlockQueue::service() noexcept {
  const bool inside = std::exchange(serving_, true);  // settle() calls from within the disk
  if (!stopping_) {
    serve();
  }
  serving_ = inside;
  tell();
}

void BlockQueue::serve() noexcept {
  // A driver that adds requests as fast as they are answered must not keep the loop from the rest; nor one whose
  // chains are all malformed, for pop() may have passed a ring full of them before it found nothing; nor one with
  // requests of gigabytes.
  const std::size_t size = ring_->setup().size;
  std::size_t budget = 2 * size;
  bool any = false;
  ring_->disable_notifications();
  while (budget != 0 && shared_.bytes_left != 0) {
    const auto taken = take();
    if (taken == Taken::One) {
      any = true;
      --budget;
      continue;
    }
    waits_ = taken == Taken::Wait;
    // Before a notification is asked for: what comes while the disk is at it costs the driver none, and goes
    // into the next batch.
    shared_.disk.commit();
    if (taken == Taken::Wait || !ring_->enable_notifications()) {
      return;
    }
    if (untold_ >= kMostUntold) {
      tell();
    }
    ring_->disable_notifications();
    budget -= std::min(budget, std::exchange(any, false) ? 0 : size);
  }
  waits_ = true;
  shared_.disk.commit();
  shared_.later();
}

void BlockQueue::tell() noexcept {
  if (std::exchange(untold_, 0) != 0) {
    ring_->notify();
  }
}

void BlockQueue::settle() noexcept {
  if (!serving_) {
    tell();
  }
  // Without bytes left a new turn is to come.
  if ((waits_ || !unfinished_.empty()) && shared_.bytes_left != 0) {
    service();
  }
}

}  // namespace martlet::virtio
