#include "devices/virtio/vhost_user_net.h"

#include <sys/epoll.h>

#include <utility>

#include "devices/virtio/net_control.h"
#include "devices/virtio/net_queues.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kRingBits = kIndirectDescriptors | kEventIndex | kVersion1 | kRingPacked;
constexpr std::uint64_t kFirstOfOthers = 1ULL << 24U;  // below: the device's own bits

std::uint64_t features_over(const VhostUser& back_end, const VhostUser::Options& options) {
  std::uint64_t features = (back_end.features() & (kFirstOfOthers - 1)) | kNetMac | kNetStatus;
  if (options.pairs == 1) {
    features &= ~std::uint64_t{kNetMultiQueue};
  }
  if ((features & kNetMultiQueue) != 0) {
    features |= kNetControlQueue;
  }
  return features | (options.mtu != 0 ? std::uint64_t{kNetMtu} : 0);
}

}  // namespace

VhostUserNet::VhostUserNet(EventLoop& loop, const GuestMemory& memory, const Options& options)
    : loop_{loop},
      lost_{options.lost},
      back_end_{options.back_end, memory},
      offered_{features_over(back_end_, options.back_end)},
      pairs_{(offered_ & kNetMultiQueue) != 0 ? options.back_end.pairs : std::uint16_t{1}},
      queue_sizes_(std::size_t{pairs_} * 2 + (pairs_ > 1 ? 1 : 0), kNetQueueSize),
      running_(std::size_t{pairs_} * 2),
      config_{{.mac = options.mac, .status = kLinkUp, .max_pairs = pairs_, .mtu = options.back_end.mtu}} {
  for (std::uint16_t index = 0; index < 2 * pairs_; ++index) {
    const int fd = called_.emplace_back(make_eventfd()).get();
    loop_.watch(fd, EPOLLIN, [this, index, fd](std::uint32_t) {
      drain_counter(fd);
      if (interrupts_ != nullptr) {
        interrupts_->queue_used(index);
      }
    });
  }
  loop_.watch(failed_.get(), EPOLLIN, [this](std::uint32_t) {
    if (drain_counter(failed_.get()) != 0 && interrupts_ != nullptr) {
      interrupts_->needs_reset();
    }
  });
  // It says nothing unasked: whatever comes is the end.
  loop_.watch(back_end_.fd(), EPOLLIN | EPOLLRDHUP, [this](std::uint32_t) { gone(); });
}

VhostUserNet::~VhostUserNet() {
  lost_ = nullptr;
  stop();
  gone();
  loop_.unwatch(failed_.get());
  for (const auto& called : called_) {
    loop_.unwatch(called.get());
  }
}

std::uint64_t VhostUserNet::refused_ring_features() const noexcept { return kRingBits & ~back_end_.features(); }

// --- Queues

/// §5.1.2: there is one with several pairs only, and without VIRTIO_NET_F_MQ it follows the first.
std::uint16_t VhostUserNet::control_index() const noexcept {
  return static_cast<std::uint16_t>((features_ & kNetMultiQueue) != 0 ? 2 * pairs_ : 2);
}

VhostUser::Ring VhostUserNet::wanted(std::uint16_t index) const noexcept {
  return index / 2 < enabled_pairs_ ? VhostUser::Ring::Enabled : VhostUser::Ring::Disabled;
}

void VhostUserNet::start(std::uint64_t features, DriverInterrupts& interrupts) noexcept {
  features_ = features;
  interrupts_ = &interrupts;
  if (!back_end_.set_features(features)) {
    gone();
  }
}

void VhostUserNet::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  if (index == control_index() && (features_ & kNetControlQueue) != 0) {
    control_queue_ = std::move(queue);
    control_kick_ = kick;
    notified(index);  // what waits in it already
    return;
  }
  if (index >= control_index() || gone_) {
    return;
  }
  const int call = interrupts_->call_fd(index);
  running_[index] = back_end_.start(
      queue->setup(), {.kick = kick, .call = call >= 0 ? call : called_[index].get(), .failed = failed_.get()},
      wanted(index));
  if (!running_[index]) {
    gone();
  }
}

bool VhostUserNet::serves_itself(std::uint16_t index) const noexcept {
  return index < running_.size() && running_[index];
}

void VhostUserNet::notified(std::uint16_t index) noexcept {
  if (index != control_index() || !control_queue_) {
    return;
  }
  // No more than the ring holds in one turn.
  for (unsigned turn = 0; turn < kNetQueueSize; ++turn) {
    auto chain = control_queue_->pop();
    if (!chain) {
      break;
    }
    const auto command = parse_command(ChainReader{*chain}, features_, pairs_);
    const auto* const pairs = command ? std::get_if<SetPairs>(&*command) : nullptr;
    const bool done = pairs != nullptr && enable_pairs(pairs->pairs);
    ChainWriter answer{*chain};
    const bool answered = answer.remaining() != 0 && answer.write(done ? NetAnswer::Ok : NetAnswer::Error);
    control_queue_->complete(std::move(*chain), answered ? 1 : 0);
  }
  control_queue_->notify();
  if (control_queue_->enable_notifications()) {
    signal_eventfd(control_kick_);  // others first
  }
}

bool VhostUserNet::enable_pairs(std::uint16_t count) noexcept {
  enabled_pairs_ = count;
  for (std::uint16_t index = 0; index < rings(); ++index) {
    if (running_[index] && !gone_ && !back_end_.enable(index, wanted(index))) {
      gone();
    }
  }
  return !gone_;
}

void VhostUserNet::stop_queue(std::uint16_t index) noexcept {
  if (index == control_index()) {
    control_queue_.reset();
  } else if (serves_itself(index)) {
    running_[index] = false;
    if (!gone_ && !back_end_.stop(index)) {
      gone();
    }
  }
}

void VhostUserNet::stop() noexcept {
  for (std::uint16_t index = 0; index < rings(); ++index) {
    stop_queue(index);
  }
  control_queue_.reset();
  drain_counter(failed_.get());
  enabled_pairs_ = 1;
  features_ = 0;
  interrupts_ = nullptr;
}

/// The cable is out for good.
void VhostUserNet::gone() noexcept {
  if (std::exchange(gone_, true)) {
    return;
  }
  loop_.unwatch(back_end_.fd());
  config_.change([](NetConfig& config) { config.status = 0; });
  if (interrupts_ != nullptr && (features_ & kNetStatus) != 0) {
    interrupts_->config_changed();
  }
  if (lost_) {
    lost_();
  }
}

}  // namespace martlet::virtio
