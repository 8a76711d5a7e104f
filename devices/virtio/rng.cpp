#include "devices/virtio/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

/// Fills `into` from its start; returns how far. Less than all only if the host has no getrandom(2).
std::size_t fill(std::span<std::byte> into) noexcept {
  std::size_t filled = 0;
  while (filled < into.size()) {
    const auto got = ::getrandom(into.data() + filled, into.size() - filled, 0);
    if (got < 0 && errno != EINTR) {
      break;
    }
    filled += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
  }
  return filled;
}

std::uint32_t fill(const DescriptorChain& request) noexcept {
  std::uint32_t filled = 0;
  for (const auto buffer : request.writable()) {
    const auto part = buffer.first(std::min<std::size_t>(buffer.size(), Rng::kMostPerRequest - filled));
    const auto got = fill(part);
    filled += static_cast<std::uint32_t>(got);
    if (got < part.size() || filled == Rng::kMostPerRequest) {
      break;
    }
  }
  return filled;
}

}  // namespace

void Rng::read_config(std::uint32_t /*offset*/, std::span<std::byte> into) noexcept {
  std::ranges::fill(into, std::byte{});
}

void Rng::start(std::uint64_t /*features*/, DriverInterrupts& /*interrupts*/) noexcept {}

void Rng::start_queue(std::uint16_t /*index*/, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  queue_ = std::move(queue);
  kick_ = kick;
  notified(0);
}

void Rng::notified(std::uint16_t /*index*/) noexcept {
  if (!queue_) {
    return;
  }
  queue_->disable_notifications();
  for (int served = 0;; ++served) {
    if (served == kRequestsInARow) {
      signal_eventfd(kick_);  // the rest when the loop comes by again
      break;
    }
    auto request = queue_->pop();
    if (request) {
      const auto filled = fill(*request);
      queue_->complete(std::move(*request), filled);
    } else if (!queue_->enable_notifications()) {
      break;
    }
  }
  queue_->notify();
}

void Rng::stop_queue(std::uint16_t /*index*/) noexcept { queue_.reset(); }

}  // namespace martlet::virtio
