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
    : backend_{backend}, pair_{pair}, pace_{pace}, counters_{counters}, vectors_(kMostVectors) {}

void NetTransmitter::start(std::unique_ptr<VirtQueue> queue, std::uint64_t features) {
  stop();
  queue_ = std::move(queue);
  offloads_ = host_offloads(features);
}

void NetTransmitter::stop() noexcept {
  waiting_.reset();
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
  for (int frames = 0; frames < kNetTurn; ++frames) {
    if (!waiting_ && !(waiting_ = queue_->pop())) {
      return NetWait::Driver;
    }
    if (link == Link::Carry) {
      if (!pace_.may_go()) {
        return NetWait::Pace;
      }
      const auto sent = send(*waiting_);
      if (sent == -EAGAIN) {
        return NetWait::Backend;
      }
      if (sent == -ENODEV) {
        return NetWait::Gone;
      }
      if (sent > static_cast<std::ptrdiff_t>(sizeof(NetHeader))) {
        const auto bytes = static_cast<std::uint64_t>(sent) - sizeof(NetHeader);
        ++counters_.frames;
        counters_.bytes += bytes;
        pace_.went(bytes);
      } else {
        ++counters_.dropped;
      }
    } else {
      ++counters_.dropped;
    }
    queue_->complete(std::move(*waiting_), 0);
    waiting_.reset();
  }
  return NetWait::Turn;
}

/// As NetBackend::send(), or -EINVAL for a frame that no backend shall see.
std::ptrdiff_t NetTransmitter::send(const DescriptorChain& chain) noexcept {
  ChainReader reader{chain};
  const auto guest = reader.read<NetHeader>();
  if (!guest) {
    return -EINVAL;
  }
  auto header = check_header(*guest, reader.remaining(), offloads_);
  if (!header) {
    return -EINVAL;
  }
  vectors_[0] = {&*header, sizeof *header};
  const auto frame = reader.take(std::span{vectors_}.subspan(1));
  if (reader.remaining() != 0) {
    return -EINVAL;  // in too many pieces for one system call
  }
  return backend_.send(pair_, {vectors_.data(), frame.size() + 1});
}

}  // namespace martlet::virtio
