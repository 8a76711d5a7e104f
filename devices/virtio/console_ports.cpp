#include "devices/virtio/console_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace martlet::virtio {
namespace {

constexpr std::uint16_t kQueueSize = 128;
constexpr std::uint16_t kControlQueueSize = 64;

std::vector<std::string> names_of(const std::vector<PortOptions>& options) {
  std::vector<std::string> names;
  std::ranges::transform(options, std::back_inserter(names), &PortOptions::name);
  return names;
}

/// §5.3.2: a pair of queues for port 0, one for control, then one for each other port.
std::vector<std::uint16_t> sizes_for(std::size_t ports) {
  std::vector<std::uint16_t> sizes(2 * (ports + 1), kQueueSize);
  std::fill_n(sizes.begin() + 2, 2, kControlQueueSize);
  return sizes;
}

bool is_receive(std::uint16_t queue) noexcept { return queue % 2 == 0; }

}  // namespace

ConsolePorts::ConsolePorts(EventLoop& loop, const std::vector<PortOptions>& options,
                           std::vector<ConsolePort::Hooks> hooks)
    : names_{names_of(options)},
      queue_sizes_{sizes_for(names_.size())},
      lost_(names_.size()),
      control_{names_, [this](std::size_t port, bool open) { ports_[port]->set_open(open); }},
      config_{{.max_ports = static_cast<std::uint32_t>(names_.size())}} {
  hooks.resize(options.size());
  for (std::size_t i = 0; i < options.size(); ++i) {
    hooks[i].connected = [this, i](bool connected) { control_.set_connected(i, connected); };
    ports_.push_back(
        std::make_unique<ConsolePort>(loop, options[i].target, ConsolePort::Role::Stream, std::move(hooks[i])));
    control_.set_connected(i, ports_.back()->host().connected());
  }
}

std::uint64_t ConsolePorts::features() const noexcept { return kInOrder | kConsoleMultiport; }

void ConsolePorts::start(std::uint64_t features, DriverInterrupts& /*interrupts*/) noexcept { accepted_ = features; }

ConsolePort* ConsolePorts::port_of(std::uint16_t queue) noexcept {
  if (queue < 2) {
    return ports_.front().get();
  }
  const auto index = static_cast<std::size_t>(queue / 2 - 1);
  return multiport() && index < ports_.size() ? ports_[index].get() : nullptr;
}

void ConsolePorts::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  if (multiport() && index == kControlReceive) {
    control_.start_receive(std::move(queue), kick);
  } else if (multiport() && index == kControlTransmit) {
    control_.start_transmit(std::move(queue), kick);
  } else if (auto* const port = port_of(index)) {
    if (is_receive(index)) {
      port->start_receive(std::move(queue), kick);
      if (!multiport()) {
        port->set_open(true);  // nobody will tell
      }
    } else {
      port->start_transmit(std::move(queue), kick);
    }
  }
}

void ConsolePorts::notified(std::uint16_t index) noexcept {
  if (multiport() && index == kControlReceive) {
    control_.receive_kicked();
  } else if (multiport() && index == kControlTransmit) {
    control_.transmit_kicked();
  } else if (auto* const port = port_of(index)) {
    is_receive(index) ? port->receive_kicked() : port->transmit_kicked();
  }
}

void ConsolePorts::stop_queue(std::uint16_t index) noexcept {
  if (multiport() && index == kControlReceive) {
    control_.stop_receive();
  } else if (multiport() && index == kControlTransmit) {
    control_.stop_transmit();
  } else if (auto* const port = port_of(index)) {
    is_receive(index) ? port->stop_receive() : port->stop_transmit();
  }
}

void ConsolePorts::stop() noexcept {
  control_.stop_receive();
  control_.stop_transmit();
  control_.reset();
  for (const auto& port : ports_) {
    port->stop_receive();
    port->stop_transmit();
    port->set_open(false);
  }
  accepted_ = 0;
}

void ConsolePorts::finish(std::chrono::milliseconds patience) noexcept {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    lost_[i] = ports_[i]->finish(std::max(left, std::chrono::milliseconds{}));
  }
}

std::vector<std::string> ConsolePorts::ptys() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    if (const auto& path = ports_[i]->host().pty_path(); !path.empty()) {
      lines.push_back(fmt::format("port {} is {}", names_[i], path));
    }
  }
  return lines;
}

std::vector<std::string> ConsolePorts::troubles() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    if (const auto& trouble = ports_[i]->host().trouble(); !trouble.empty()) {
      lines.push_back(trouble);
    }
    if (lost_[i] != 0) {
      lines.push_back(fmt::format("{} bytes of port {} lost: nobody read them", lost_[i], names_[i]));
    }
  }
  return lines;
}

}  // namespace martlet::virtio
