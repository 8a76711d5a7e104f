#include "devices/virtio/net.h"

#include <sys/epoll.h>

#include <utility>

#include "devices/virtio/net_header.h"

namespace martlet::virtio {
namespace {

// Fewer than frames: one may cost the host an RCU grace period for each pair (TUNSETQUEUE), and every queue its turn.
constexpr int kCommandsInATurn = 4;

std::uint64_t features_over(const NetBackend& backend) {
  std::uint64_t features = features_of(backend.offloads()) | kNetMtu | kNetMac | kNetMergeableBuffers | kNetStatus |
                           kNetControlQueue | kNetControlRx | kNetControlRxExtra | kNetControlMac;
  if (backend.offloads() != 0) {
    features |= kNetControlGuestOffloads;
  }
  if (backend.pairs() > 1) {
    features |= kNetMultiQueue;
  }
  return features;
}

}  // namespace

Net::Net(EventLoop& loop, std::unique_ptr<NetBackend> backend, const Options& options)
    : loop_{loop},
      backend_{std::move(backend)},
      offered_{features_over(*backend_)},
      queue_sizes_(std::size_t{backend_->pairs()} * 2 + 1, kNetQueueSize),
      mac_{options.mac},
      receive_pace_{loop, options.to_guest, [this] { run_everything(); }},
      transmit_pace_{loop, options.from_guest, [this] { run_everything(); }},
      lost_{options.lost},
      config_{{.mac = mac_,
               .status = kLinkUp,
               .max_pairs = backend_->pairs(),
               .mtu = options.mtu != 0 ? options.mtu : backend_->mtu()}} {
  pairs_.reserve(backend_->pairs());
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    pairs_.push_back({.receiver{*backend_, pair, receive_pace_, statistics_.received},
                      .transmitter{*backend_, pair, transmit_pace_, statistics_.sent}});
  }
  if (options.vhost != Vhost::Off && options.memory != nullptr && !options.to_guest.any()) {
    open_vhost(options);
  }
  loop_.watch(again_.get(), EPOLLIN, [this](std::uint32_t) {
    drain_counter(again_.get());
    take_turns();
  });
  // Watched for nothing yet, so that nothing can fail later.
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    loop_.watch(backend_->fd(pair), 0, [this, pair](std::uint32_t events) { ready(pair, events); });
  }
  if (backend_->link_fd() >= 0) {
    loop_.watch(backend_->link_fd(), EPOLLIN,
                [this](std::uint32_t) { set_link(backend_->refresh_link() ? Link::Up : Link::Down); });
  }
}

Net::~Net() {
  lost_ = nullptr;
  stop();
  backend_gone();
  loop_.unwatch(again_.get());
  loop_.unwatch(vhost_failed_.get());
  for (auto& pair : pairs_) {
    for (const auto& called : pair.called) {
      loop_.unwatch(called.get());
    }
  }
}

// --- Queues

/// §5.1.2: receiveq1, transmitq1, …, controlq. Without VIRTIO_NET_F_MQ there is but one pair before the last.
std::uint16_t Net::control_index() const noexcept {
  const auto pairs = (features_ & kNetMultiQueue) != 0 ? pairs_.size() : 1;
  return static_cast<std::uint16_t>(2 * pairs);
}

Net::Role Net::role(std::uint16_t index) const noexcept {
  if (index >= control_index()) {
    return index == control_index() ? Role::Control : Role::None;
  }
  return index % 2 == 0 ? Role::Receive : Role::Transmit;
}

void Net::start(std::uint64_t features, DriverInterrupts& interrupts) noexcept {
  features_ = features;
  interrupts_ = &interrupts;
  [[maybe_unused]] const bool accepted = accept(guest_offloads(features));
}

void Net::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  const auto pair = static_cast<std::uint16_t>(index / 2);
  const bool frames = role(index) == Role::Receive || role(index) == Role::Transmit;
  if (frames && hand_over(index, *queue, kick)) {
    return;
  }
  switch (role(index)) {
    case Role::Receive:
      pairs_[pair].receiver.start(std::move(queue), features_);
      break;
    case Role::Transmit:
      pairs_[pair].transmitter.start(std::move(queue), features_);
      break;
    case Role::Control:
      control_queue_ = std::move(queue);
      break;
    case Role::None:
      return;
  }
  notified(index);  // what waits in it already
}

void Net::notified(std::uint16_t index) noexcept {
  const auto pair = static_cast<std::uint16_t>(index / 2);
  switch (role(index)) {
    case Role::Receive:
      receive(pair);
      break;
    case Role::Transmit:
      transmit(pair);
      break;
    case Role::Control:
      control();
      break;
    case Role::None:
      break;
  }
}

void Net::stop_queue(std::uint16_t index) noexcept {
  const auto pair = static_cast<std::uint16_t>(index / 2);
  if (serves_itself(index)) {
    pairs_[pair].vhost->stop(static_cast<VhostNet::Ring>(index % 2));
  }
  switch (role(index)) {
    case Role::Receive:
      pairs_[pair].receiver.stop();
      pairs_[pair].wants_input = false;
      watch(pair);
      break;
    case Role::Transmit:
      pairs_[pair].transmitter.stop();
      pairs_[pair].turn_over = false;
      watch(pair);
      break;
    case Role::Control:
      control_queue_.reset();
      break;
    case Role::None:
      break;
  }
}

void Net::stop() noexcept {
  for (std::uint16_t index = 0; index <= control_index(); ++index) {
    stop_queue(index);
  }
  drain_counter(vhost_failed_.get());
  [[maybe_unused]] const bool one_pair = enable_pairs(1);
  [[maybe_unused]] const bool no_offloads = accept(0);
  features_ = 0;
  interrupts_ = nullptr;
  change_config([this](NetConfig& config) { config.mac = mac_; });
}

// --- Frames

void Net::receive(std::uint16_t pair) noexcept {
  auto& [receiver, transmitter, vhost, called, wants_input, turn_over, watched] = pairs_[pair];
  if (!receiver.started() || pair >= enabled_pairs_ || (config_.fields().status & kLinkUp) == 0) {
    wants_input = false;
  } else {
    const auto wait = receiver.run();
    if (wait == NetWait::Gone) {
      backend_gone();
      return;
    }
    wants_input = wait == NetWait::Backend || wait == NetWait::Turn;
  }
  watch(pair);
}

void Net::transmit(std::uint16_t pair) noexcept {
  auto& [receiver, transmitter, vhost, called, wants_input, turn_over, watched] = pairs_[pair];
  if (!transmitter.started() || pair >= enabled_pairs_) {
    return;
  }
  using Carry = NetTransmitter::Link;
  const auto wait = transmitter.run((config_.fields().status & kLinkUp) != 0 ? Carry::Carry : Carry::Drop);
  if (wait == NetWait::Gone) {
    backend_gone();
    return;
  }
  turn_over = wait == NetWait::Turn;
  if (turn_over) {
    signal_eventfd(again_.get());
  }
  watch(pair);
}

void Net::run_everything() noexcept {
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    receive(pair);
    transmit(pair);
  }
}

void Net::take_turns() noexcept {
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    if (std::exchange(pairs_[pair].turn_over, false)) {
      transmit(pair);
    }
  }
  control();
}

void Net::watch(std::uint16_t pair) noexcept {
  auto& self = pairs_[pair];
  const std::uint32_t wanted =
      (self.wants_input ? std::uint32_t{EPOLLIN} : 0) | (self.transmitter.full() ? std::uint32_t{EPOLLOUT} : 0);
  if (!gone_ && wanted != self.watched) {
    loop_.change(backend_->fd(pair), wanted);
    self.watched = wanted;
  }
}

void Net::ready(std::uint16_t pair, std::uint32_t events) noexcept {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {  // reported whether watched for or not, and for ever
    backend_gone();
    return;
  }
  if ((events & EPOLLIN) != 0) {
    receive(pair);
  }
  if ((events & EPOLLOUT) != 0) {
    transmit(pair);
  }
}

/// The interface was deleted, or its program has ended: the cable is out for good.
void Net::backend_gone() noexcept {
  if (std::exchange(gone_, true)) {
    return;
  }
  for (std::uint16_t pair = 0; pair < backend_->pairs(); ++pair) {
    loop_.unwatch(backend_->fd(pair));
  }
  loop_.unwatch(backend_->link_fd());
  set_link(Link::Down);
  if (lost_) {
    lost_();
  }
}

void Net::set_link(Link link) noexcept {
  const bool up = link == Link::Up && !gone_;
  if (up == ((config_.fields().status & kLinkUp) != 0)) {
    return;
  }
  change_config([up](NetConfig& config) { config.status = up ? kLinkUp : 0; });
  run_everything();
}

// --- Configuration

void Net::change_config(const std::function<void(NetConfig&)>& change) noexcept {
  const auto before = config_.fields().status;
  config_.change(change);
  if (before != config_.fields().status && interrupts_ != nullptr && (features_ & kNetStatus) != 0) {
    interrupts_->config_changed();
  }
}

// --- Commands

void Net::control() noexcept {
  if (!control_queue_) {
    return;
  }
  int commands = 0;
  for (; commands < kCommandsInATurn; ++commands) {
    auto chain = control_queue_->pop();
    if (!chain) {
      break;
    }
    ++statistics_.commands;
    ChainWriter answer{*chain};
    const bool answerable = answer.remaining() != 0;  // else it asks for nothing, and gets it
    const auto result = answerable ? execute(*chain) : NetAnswer::Error;
    statistics_.bad_commands += result == NetAnswer::Ok ? 0 : 1;
    const bool answered = answerable && answer.write(result);
    control_queue_->complete(std::move(*chain), answered ? 1 : 0);
  }
  control_queue_->notify();
  // After a ring full of malformed chains pop() has not asked for a notification.
  if (commands == kCommandsInATurn || control_queue_->enable_notifications()) {
    signal_eventfd(again_.get());
  }
}

NetAnswer Net::execute(const DescriptorChain& chain) noexcept {
  const auto command = parse_command(ChainReader{chain}, features_, static_cast<std::uint16_t>(pairs_.size()));
  if (!command) {
    return NetAnswer::Error;
  }
  bool done = true;
  if (const auto* const mac = std::get_if<SetMac>(&*command)) {
    change_config([mac](NetConfig& config) { config.mac = mac->mac; });
  } else if (const auto* const pairs = std::get_if<SetPairs>(&*command)) {
    done = enable_pairs(pairs->pairs);
  } else if (const auto* const offloads = std::get_if<SetGuestOffloads>(&*command)) {
    done = accept(guest_offloads(offloads->mask));
  }
  return done ? NetAnswer::Ok : NetAnswer::Error;
}

bool Net::enable_pairs(std::uint16_t count) noexcept {
  if (count == enabled_pairs_) {
    return true;
  }
  if (!backend_->enable_pairs(count)) {
    return false;
  }
  enabled_pairs_ = count;
  run_everything();
  return true;
}

bool Net::accept(std::uint32_t offloads) noexcept {
  if (!backend_->set_offloads(offloads)) {
    return false;
  }
  for (auto& pair : pairs_) {
    pair.receiver.accept(offloads);
  }
  return true;
}

}  // namespace martlet::virtio
