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
constexpr std::size_t kMostVectors = 1024;  // UIO_MAXIOV
// Our header before the guest's buffers, our overflow behind.
constexpr std::size_t kOwnVectors = 2;

}  // namespace

NetReceiver::NetReceiver(NetBackend& backend, std::uint16_t pair, NetPace& pace, NetCounters& counters)
    : backend_{backend},
      pair_{pair},
      pace_{pace},
      counters_{counters},
      overflow_{std::make_unique_for_overwrite<std::byte[]>(NetBackend::kMaxFrame)} {
  vectors_.reserve(kMostVectors);
}

void NetReceiver::start(std::unique_ptr<VirtQueue> queue, std::uint64_t features) {
  stop();
  queue_ = std::move(queue);
  mergeable_ = (features & kNetMergeableBuffers) != 0;
  chains_.reserve(queue_->setup().size);
  expected_ = kUsualFrame;
}

void NetReceiver::stop() noexcept {
  drop();
  chains_.clear();  // back to the driver, empty
  room_ = 0;
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
  for (int frames = 0; frames < kNetTurn; ++frames) {
    if (held_ != 0 && !deliver()) {
      return NetWait::Driver;
    }
    while (room_ < expected_ && (mergeable_ || chains_.empty()) && add_chain()) {
    }
    if (chains_.empty()) {
      return NetWait::Driver;
    }
    if (!pace_.may_go()) {
      return NetWait::Pace;
    }
    const auto got = read_frame();
    if (got == -EAGAIN) {
      return NetWait::Backend;
    }
    if (got == -ENODEV) {
      return NetWait::Gone;
    }
    const auto length = static_cast<std::size_t>(std::max<std::ptrdiff_t>(got, 0));
    if (length < kHeader + kEthernetHeader || !takes(offloads_, header_)) {
      ++counters_.dropped;
      continue;
    }
    if ((offloads_ & kChecksum) == 0) {
      header_.flags = 0;  // §5.1.6.4.1
    }
    held_ = length;
    expected_ = std::max({length, expected_ - expected_ / 8, kUsualFrame});
    pace_.went(length - kHeader);
    if (!deliver()) {
      return NetWait::Driver;
    }
  }
  return NetWait::Turn;
}

/// Takes another chain for frames. One that has not room for a header is given back (§5.1.6.3.1).
bool NetReceiver::add_chain() noexcept {
  for (std::uint16_t tries = queue_->setup().size; tries > 0; --tries) {
    auto chain = queue_->pop();
    if (!chain) {
      return false;
    }
    if (chain->writable_bytes() >= kHeader) {
      room_ += chain->writable_bytes();
      chains_.push_back({std::move(*chain), 0});
      return true;
    }
  }
  return false;
}

std::ptrdiff_t NetReceiver::read_frame() noexcept {
  // A chain has no more buffers than its queue descriptors (§2.7.5.3.1), so the first always fits.
  vectors_.clear();
  vectors_.push_back({&header_, kHeader});
  direct_ = 0;
  direct_chains_ = 0;
  for (const auto& [chain, written] : chains_) {
    if (direct_ >= expected_ || vectors_.size() + chain.writable().size() + kOwnVectors > kMostVectors) {
      break;
    }
    std::size_t skip = direct_ == 0 ? kHeader : 0;  // which is there already
    for (auto buffer : chain.writable()) {
      const auto skipped = std::min(skip, buffer.size());
      skip -= skipped;
      buffer = buffer.subspan(skipped);
      if (!buffer.empty()) {
        vectors_.push_back({buffer.data(), buffer.size()});
      }
    }
    direct_ += chain.writable_bytes();
    ++direct_chains_;
  }
  vectors_.push_back({overflow_.get(), NetBackend::kMaxFrame});
  return backend_.receive(pair_, vectors_);
}

/// Gives the frame to the driver; false when buffers are missing.
bool NetReceiver::deliver() noexcept {
  while (mergeable_ && room_ < held_ && chains_.size() < queue_->setup().size && add_chain()) {
  }
  if (room_ < held_) {
    // Without mergeable buffers it never fits; with them it will, unless these are all the driver has.
    if (mergeable_ && chains_.size() < queue_->setup().size) {
      return false;
    }
    drop();
    return true;
  }
  move_overflow();
  give_back();
  ++counters_.frames;
  counters_.bytes += held_ - kHeader;
  held_ = 0;
  return true;
}

void NetReceiver::move_overflow() noexcept {
  std::span<const std::byte> rest{overflow_.get(), held_ > direct_ ? held_ - direct_ : 0};
  for (std::size_t i = direct_chains_; !rest.empty(); ++i) {
    rest = rest.subspan(ChainWriter{chains_[i].chain}.copy(rest));
  }
}

void NetReceiver::give_back() noexcept {
  std::size_t left = held_;
  std::size_t count = 0;
  for (; left != 0; ++count) {
    auto& [chain, written] = chains_[count];
    written = static_cast<std::uint32_t>(std::min<std::size_t>(left, chain.writable_bytes()));
    room_ -= chain.writable_bytes();
    left -= written;
  }
  header_.num_buffers = static_cast<std::uint16_t>(count);  // 1 without mergeable buffers, §5.1.6.4.1
  [[maybe_unused]] const bool fits = ChainWriter{chains_.front().chain}.write(header_);
  if (count == 1) {
    queue_->complete(std::move(chains_.front().chain), chains_.front().written);
  } else {
    queue_->complete_together({chains_.data(), count});
  }
  chains_.erase(chains_.begin(), chains_.begin() + static_cast<std::ptrdiff_t>(count));
}

void NetReceiver::drop() noexcept {
  if (std::exchange(held_, 0) != 0) {
    ++counters_.dropped;
  }
}

}  // namespace martlet::virtio
