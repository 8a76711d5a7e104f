#include "devices/virtio/console_control.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "devices/virtio/chain.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

constexpr int kChainsInARow = 256;

}  // namespace

ConsoleControl::ConsoleControl(std::vector<std::string> names, Opened opened) : opened_{std::move(opened)} {
  for (auto& name : names) {
    ports_.push_back({.name = std::move(name)});
  }
}

void ConsoleControl::set_connected(std::size_t index, bool connected) noexcept {
  auto& port = ports_[index];
  if (std::exchange(port.connected, connected) == connected || !port.ready) {
    return;
  }
  if (connected) {
    port.pending |= kOpen;
  } else if ((port.pending & kOpen) != 0) {
    port.pending &= ~kOpen;  // it never learnt of that one
  } else {
    port.pending |= kClose;
  }
  send();
}

void ConsoleControl::start_receive(std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  receive_ = {.queue = std::move(queue), .kick = kick};
  send();
}

void ConsoleControl::start_transmit(std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  transmit_ = {.queue = std::move(queue), .kick = kick};
  transmit_kicked();
}

void ConsoleControl::reset() noexcept {
  ready_ = false;
  for (auto& port : ports_) {
    port.ready = false;
    port.pending = 0;
  }
}

void ConsoleControl::transmit_kicked() noexcept {
  if (!transmit_.queue) {
    return;
  }
  auto& queue = *transmit_.queue;
  queue.disable_notifications();
  for (int taken = 0;; ++taken) {
    if (taken == kChainsInARow) {
      signal_eventfd(transmit_.kick);
      break;
    }
    auto chain = queue.pop();
    if (chain) {
      const auto message = ChainReader{*chain}.read<ConsoleMessage>();
      queue.complete(std::move(*chain), 0);
      if (message) {
        obey(*message);
      }
    } else if (!queue.enable_notifications()) {
      break;
    }
  }
  queue.notify();
  send();
}

/// Messages about ports that there are not, before their time or of no meaning from a driver are ignored.
void ConsoleControl::obey(const ConsoleMessage& message) noexcept {
  if (message.event == kDeviceReady) {
    if (message.value == 1 && !std::exchange(ready_, true)) {
      for (auto& port : ports_) {
        port.pending = kAdd;
      }
    }
    return;
  }
  if (!ready_ || message.port >= ports_.size()) {
    return;
  }
  auto& port = ports_[message.port];
  if ((port.pending & kAdd) != 0) {
    return;  // it cannot know it yet
  }
  if (message.event == kPortReady && message.value == 1) {
    port_ready(port);
  } else if (message.event == kPortOpen && port.ready) {
    opened_(message.port, message.value != 0);
  }
}

void ConsoleControl::port_ready(Port& port) noexcept {
  port.ready = true;
  port.pending = kName | (port.connected ? kOpen : 0U);
}

/// The first port that has something to say.
ConsoleControl::Port* ConsoleControl::speaker() noexcept {
  const auto port = std::ranges::find_if(ports_, [](const Port& candidate) { return candidate.pending != 0; });
  return port == ports_.end() ? nullptr : &*port;
}

void ConsoleControl::Packet::append(std::span<const std::byte> more) noexcept {
  const auto fits = std::min(more.size(), bytes.size() - size);
  std::ranges::copy(more.first(fits), bytes.begin() + static_cast<std::ptrdiff_t>(size));
  size += fits;
}

ConsoleControl::Packet ConsoleControl::next_packet(const Port& port) const noexcept {
  static constexpr std::array<std::pair<ConsoleEvent, std::uint16_t>, 4> kMessages{
      {{kPortAdd, 1}, {kPortName, 1}, {kPortOpen, 0}, {kPortOpen, 1}}};
  const auto& [event, value] = kMessages[static_cast<std::size_t>(std::countr_zero(port.pending))];
  const ConsoleMessage message{
      .port = static_cast<std::uint32_t>(&port - ports_.data()), .event = event, .value = value};
  Packet packet;
  packet.append(std::as_bytes(std::span{&message, 1}));
  if (event == kPortName) {
    packet.append(std::as_bytes(std::span{port.name}));
  }
  return packet;
}

/// What there is to say, as far as the driver has buffers. One that is too small goes back empty.
void ConsoleControl::send() noexcept {
  if (!receive_.queue) {
    return;
  }
  auto& queue = *receive_.queue;
  queue.disable_notifications();
  for (int used = 0; auto* const port = speaker(); ++used) {
    if (used == kChainsInARow) {
      signal_eventfd(receive_.kick);
      break;
    }
    auto chain = queue.pop();
    if (!chain) {
      if (!queue.enable_notifications()) {
        break;
      }
      continue;
    }
    const auto packet = next_packet(*port);
    const bool fits = chain->writable_bytes() >= packet.size;
    if (fits) {
      ChainWriter{*chain}.copy(std::span{packet.bytes}.first(packet.size));
      port->pending &= port->pending - 1;  // the lowest bit
    }
    queue.complete(std::move(*chain), fits ? static_cast<std::uint32_t>(packet.size) : 0);
  }
  queue.notify();
}

}  // namespace martlet::virtio
