#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

#include "devices/virtio/net_header.h"
#include "devices/virtio/net_queues.h"

namespace martlet::virtio {
namespace {

constexpr std::size_t kHeader = sizeof(NetHeader);
static_assert(kHeader == NetBackend::kHeaderSize);
constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kUsualFrame = kHeader + 1500 + kEthernetHeader + 4;
constexpr std::size_t kLongest = kHeader + NetBackend::kMaxFrame;
constexpr unsigned kMostPatience = 64;

}  // namespace

NetReceiver::NetReceiver(NetBackend& backend, std::uint16_t pair, NetPace& pace, NetCounters& counters)
    : backend_{backend},
      pair_{pair},
      pace_{pace},
      counters_{counters},
      overflow_{std::make_unique_for_overwrite<std::byte[]>(kNetBatch * kLongest)},
      frames_(kNetBatch) {
  for (std::size_t i = 0; i < kNetBatch; ++i) {
    frames_[i].overflow = {overflow_.get() + i * kLongest, kLongest};
  }
  transfers_.reserve(kNetBatch);
}

void NetReceiver::start(std::unique_ptr<VirtQueue> queue, std::uint64_t features) {
  stop();
  queue_ = std::move(queue);
  mergeable_ = (features & kNetMergeableBuffers) != 0;
  expected_ = kUsualFrame;
  batch_ = 1;
}

void NetReceiver::stop() noexcept {
  for (; first_ != end_; ++first_) {
    counters_.dropped += frames_[first_].length != 0 ? 1 : 0;
    take_chains_from(frames_[first_]);
  }
  spare_.clear();  // back to the driver, empty
  taken_ = 0;
  queue_.reset();
}

NetWait NetReceiver::run() noexcept {
  queue_->disable_notifications();
  for (int tries = 0; tries < kNetTries; ++tries) {
    const auto wait = serve();
    queue_->notify();
    if (wait != NetWait::Driver || !queue_->enable_notifications()) {
      return wait;
    }
    queue_->disable_notifications();
  }
  return NetWait::Turn;
}

NetWait NetReceiver::serve() noexcept {
  if (!deliver_all()) {
    return NetWait::Driver;
  }
  const auto most = pace_.may_go();
  if (most == 0) {
    return NetWait::Pace;
  }
  const auto count = prepare(std::min(batch_, most));
  if (count == 0) {
    return NetWait::Driver;
  }
  const auto wait = receive(count);
  return deliver_all() ? wait : NetWait::Driver;
}

/// A read that finds nothing costs more than the loop, which knows whether there is more: so as many as there have
/// been of late, and more after some reads in a row found all they wanted. After how many, experience tells.
void NetReceiver::learn(std::size_t wanted, std::size_t found) noexcept {
  if (found < wanted) {
    batch_ = std::max<std::size_t>(found, 1);
    patience_ = std::min(2 * patience_, kMostPatience);
    full_reads_ = 0;
  } else if (++full_reads_ >= patience_) {
    batch_ = std::min(2 * batch_, kNetBatch);
    patience_ = std::max(patience_ / 2, 1U);
    full_reads_ = 0;
  }
}

/// Gives chains to `wanted` frames, or to as many as there are chains for.
std::size_t NetReceiver::prepare(std::size_t wanted) noexcept {
  std::size_t count = 0;
  for (; count < wanted; ++count) {
    auto& frame = frames_[count];
    while (frame.room < expected_ && (mergeable_ || frame.chains.empty()) && add_chain(frame)) {
    }
    // One must do with what there is. Others would have what it may come to need.
    if (frame.chains.empty() || (count != 0 && mergeable_ && frame.room < expected_)) {
      take_chains_from(frame);
      break;
    }
  }
  return count;
}

/// Takes another chain for `frame`. One that has not room for a header is given back (§5.1.6.3.1).
bool NetReceiver::add_chain(NetArrival& frame) noexcept {
  if (!spare_.empty()) {
    frame.room += spare_.front().chain.writable_bytes();
    frame.chains.push_back(std::move(spare_.front()));
    spare_.pop_front();
    return true;
  }
  for (std::uint16_t tries = queue_->setup().size; tries > 0; --tries) {
    auto chain = queue_->pop();
    if (!chain) {
      return false;
    }
    if (chain->writable_bytes() >= kHeader) {
      frame.room += chain->writable_bytes();
      frame.chains.push_back({std::move(*chain), 0});
      ++taken_;
      return true;
    }
  }
  return false;
}

/// What it has not used serves others.
void NetReceiver::take_chains_from(NetArrival& frame) noexcept {
  std::ranges::move(frame.chains, std::back_inserter(spare_));
  frame.chains.clear();
  frame.room = 0;
}

/// Reads into the first `count` frames. Turn: there may be more.
NetWait NetReceiver::receive(std::size_t count) noexcept {
  transfers_.clear();
  for (auto& frame : std::span{frames_}.first(count)) {
    frame.aim(expected_);
    transfers_.push_back({.vectors = frame.vectors});
  }
  backend_.receive_all(pair_, transfers_);
  first_ = 0;
  end_ = count;
  auto wait = NetWait::Turn;
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto result = transfers_[i].result;
    frames_[i].length = 0;
    if (result == -ENODEV) {
      wait = NetWait::Gone;
    } else if (result != -EAGAIN) {
      ++found;
      look_at(frames_[i], result);
    } else if (wait == NetWait::Turn) {
      wait = NetWait::Backend;
    }
  }
  learn(count, found);
  return wait;
}

void NetReceiver::look_at(NetArrival& frame, std::ptrdiff_t result) noexcept {
  const auto length = static_cast<std::size_t>(std::max<std::ptrdiff_t>(result, 0));
  if (length < kHeader + kEthernetHeader || length > kLongest || !takes(offloads_, frame.header)) {
    ++counters_.dropped;
    return;
  }
  if ((offloads_ & kChecksum) == 0) {
    frame.header.flags = 0;  // §5.1.6.4.1
  }
  frame.length = length;
  expected_ = std::max({length, expected_ - expected_ / 8, kUsualFrame});
  pace_.went(length - kHeader);
}

/// Gives what was read to the driver; false when buffers are missing.
bool NetReceiver::deliver_all() noexcept {
  while (first_ != end_ && deliver()) {
    ++first_;
  }
  return first_ == end_;
}

/// Gives the first frame to the driver; false when buffers are missing.
bool NetReceiver::deliver() noexcept {
  auto& frame = frames_[first_];
  if (frame.length != 0 && !make_room()) {
    // Without mergeable buffers it never fits; with them it will, unless these are all the driver has.
    if (mergeable_ && taken_ < queue_->setup().size) {
      return false;
    }
    ++counters_.dropped;
    frame.length = 0;
  }
  if (frame.length != 0) {
    const auto count = frame.fill_chains();
    if (count == 1) {
      queue_->complete(std::move(frame.chains.front().chain), frame.chains.front().written);
    } else {
      queue_->complete_together(std::span{frame.chains}.first(count));
    }
    taken_ -= count;
    frame.chains.erase(frame.chains.begin(), frame.chains.begin() + static_cast<std::ptrdiff_t>(count));
    ++counters_.frames;
    counters_.bytes += frame.length - kHeader;
  }
  take_chains_from(frame);
  return true;
}

/// For the first frame; those that came after it may have to wait in buffers of our own.
bool NetReceiver::make_room() noexcept {
  auto& frame = frames_[first_];
  for (auto last = end_;;) {
    while (mergeable_ && frame.room < frame.length && add_chain(frame)) {
    }
    if (frame.room >= frame.length || !mergeable_ || --last == first_) {
      return frame.room >= frame.length;
    }
    frames_[last].unload();
    take_chains_from(frames_[last]);
  }
}

}  // namespace martlet::virtio
