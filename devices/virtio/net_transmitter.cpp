#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/virtio/net_header.h"
#include "devices/virtio/net_queues.h"

namespace martlet::virtio {
namespace {

constexpr std::size_t kMostVectors = 1024;  // UIO_MAXIOV

}  // namespace

NetTransmitter::NetTransmitter(NetBackend& backend, std::uint16_t pair, NetPace& pace, NetCounters& counters)
    : backend_{backend}, pair_{pair}, pace_{pace}, counters_{counters}, frames_(kNetBatch) {
  transfers_.reserve(kNetBatch);
}

void NetTransmitter::start(std::unique_ptr<VirtQueue> queue, std::uint64_t features) {
  stop();
  queue_ = std::move(queue);
  offloads_ = host_offloads(features);
}

void NetTransmitter::stop() noexcept {
  for (; first_ != end_; ++first_) {
    frames_[first_].chain.reset();
  }
  full_ = false;
  queue_.reset();
}

NetWait NetTransmitter::run(Link link) noexcept {
  queue_->disable_notifications();
  for (int tries = 0; tries < kNetTries; ++tries) {
    const auto wait = serve(link);
    queue_->notify();
    full_ = wait == NetWait::Backend;
    if (wait != NetWait::Driver || !queue_->enable_notifications()) {
      return wait;
    }
    queue_->disable_notifications();
  }
  return NetWait::Turn;
}

NetWait NetTransmitter::serve(Link link) noexcept {
  for (std::size_t frames = 0; frames < kNetTurn;) {
    if (first_ == end_) {
      const auto taken = take();
      if (taken == 0) {
        return NetWait::Driver;
      }
      frames += taken;
    }
    if (link == Link::Drop) {
      for (; first_ != end_; ++first_) {
        ++counters_.dropped;
        finish(frames_[first_]);
      }
      continue;
    }
    if (first_ == end_) {
      continue;
    }
    const auto most = pace_.may_go();
    if (most == 0) {
      return NetWait::Pace;
    }
    const auto wait = send(std::min(most, end_ - first_));
    if (wait != NetWait::Driver) {
      return wait;
    }
  }
  return NetWait::Turn;
}

/// Takes frames from the queue, and drops those that no backend shall see. Returns how many there were.
std::size_t NetTransmitter::take() noexcept {
  first_ = end_ = 0;
  std::size_t taken = 0;
  for (; taken < kNetBatch; ++taken) {
    auto& frame = frames_[end_];
    frame.chain = queue_->pop();
    if (!frame.chain) {
      break;
    }
    if (check(frame)) {
      ++end_;
    } else {
      ++counters_.dropped;
      finish(frame);
    }
  }
  return taken;
}

bool NetTransmitter::check(Departure& frame) const noexcept {
  ChainReader reader{*frame.chain};
  const auto guest = reader.read<NetHeader>();
  const auto header = guest ? check_header(*guest, reader.remaining(), offloads_) : std::nullopt;
  if (!header) {
    return false;
  }
  frame.header = *header;
  frame.vectors.resize(std::min(frame.chain->readable().size() + 1, kMostVectors));
  frame.vectors[0] = {.iov_base = &frame.header, .iov_len = sizeof frame.header};
  const auto parts = reader.take(std::span{frame.vectors}.subspan(1));
  frame.vectors.resize(parts.size() + 1);
  return reader.remaining() == 0;  // else in too many pieces for one system call
}

/// Sends the first `count` that wait. Driver: all of them have gone.
NetWait NetTransmitter::send(std::size_t count) noexcept {
  transfers_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    transfers_.push_back({.vectors = frames_[first_ + i].vectors});
  }
  backend_.send_all(pair_, transfers_);
  for (const auto& transfer : transfers_) {
    if (transfer.result == -EAGAIN) {
      return NetWait::Backend;
    }
    if (transfer.result == -ENODEV) {
      return NetWait::Gone;
    }
    if (transfer.result > static_cast<std::ptrdiff_t>(sizeof(NetHeader))) {
      const auto bytes = static_cast<std::uint64_t>(transfer.result) - sizeof(NetHeader);
      ++counters_.frames;
      counters_.bytes += bytes;
      pace_.went(bytes);
    } else {
      ++counters_.dropped;
    }
    finish(frames_[first_++]);
  }
  return NetWait::Driver;
}

void NetTransmitter::finish(Departure& frame) noexcept {
  queue_->complete(std::move(*frame.chain), 0);
  frame.chain.reset();
}

}  // namespace martlet::virtio
