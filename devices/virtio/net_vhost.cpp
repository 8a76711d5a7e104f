// The part of a network card that hands its queues to the kernel.

#include <sys/epoll.h>

#include <algorithm>

#include "devices/virtio/net.h"
#include "vmm/base/error.h"

namespace martlet::virtio {

/// For all pairs, or for none.
void Net::open_vhost(const Options& options) {
  std::uint64_t served = ~std::uint64_t{0};
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    auto& self = pairs_[pair];
    if (backend_->vhost_fd(pair) >= 0) {
      self.vhost = VhostNet::open(*options.memory);
    }
    if (!self.vhost) {
      for (auto& other : pairs_) {
        other.vhost.reset();
      }
      if (options.vhost == Vhost::On) {
        throw HostError{VhostNet::kMissing};
      }
      return;
    }
    served &= self.vhost->features();
  }
  if ((served & kNetMergeableBuffers) == 0) {
    offered_ &= ~std::uint64_t{kNetMergeableBuffers};
  }
  vhost_failed_ = make_eventfd();
  loop_.watch(vhost_failed_.get(), EPOLLIN, [this](std::uint32_t) {
    if (drain_counter(vhost_failed_.get()) != 0 && interrupts_ != nullptr) {
      interrupts_->needs_reset();
    }
  });
  const auto rings = static_cast<std::uint16_t>(2 * pairs_.size());
  for (std::uint16_t index = 0; index < rings; ++index) {
    auto& called = pairs_[index / 2].called[index % 2];
    called = make_eventfd();
    loop_.watch(called.get(), EPOLLIN, [this, index, fd = called.get()](std::uint32_t) {
      drain_counter(fd);
      if (interrupts_ != nullptr) {
        interrupts_->queue_used(index);
      }
    });
  }
}

/// Gives the queue to the kernel; false when it is to be served here.
bool Net::hand_over(std::uint16_t index, const VirtQueue& queue, int kick) noexcept {
  const auto pair = static_cast<std::uint16_t>(index / 2);
  auto& self = pairs_[pair];
  if (!self.vhost || (role(index) == Role::Transmit && transmit_pace_.limited())) {
    return false;
  }
  const int call = interrupts_->call_fd(index);
  return self.vhost->start(static_cast<VhostNet::Ring>(index % 2), queue.setup(),
                           {.kick = kick,
                            .call = call >= 0 ? call : self.called[index % 2].get(),
                            .failed = vhost_failed_.get(),
                            .backend = backend_->vhost_fd(pair)});
}

bool Net::serves_itself(std::uint16_t index) const noexcept {
  const auto& vhost = pairs_[std::min<std::size_t>(index / 2, pairs_.size() - 1)].vhost;
  const bool frames = role(index) == Role::Receive || role(index) == Role::Transmit;
  return frames && vhost && vhost->running(static_cast<VhostNet::Ring>(index % 2));
}

/// The kernel knows no packed rings.
std::uint64_t Net::refused_ring_features() const noexcept {
  const auto& vhost = pairs_.front().vhost;
  return vhost ? kRingPacked | ((kIndirectDescriptors | kEventIndex) & ~vhost->features()) : 0;
}

}  // namespace martlet::virtio
