#include "devices/virtio/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace martlet::virtio {
namespace {

// §5.3.3
constexpr std::uint64_t kSizeFeature = 1U << 0U;
constexpr std::uint64_t kMultiport = 1U << 1U;
constexpr std::uint64_t kEmergencyWrite = 1U << 2U;

constexpr std::uint16_t kQueueSize = 128;
constexpr std::uint16_t kControlQueueSize = 64;
constexpr std::uint32_t kEmergencyOffset = 8;  // §5.3.4: emerg_wr

std::vector<std::string> names_of(const ConsoleOptions& options) {
  check_console(options);
  std::vector<std::string> names{"console"};
  for (const auto& port : options.ports) {
    names.push_back(port.name);
  }
  return names;
}

/// §5.3.2: a pair of queues for port 0, one for control, then one for each other port.
std::vector<std::uint16_t> sizes_for(std::size_t ports) {
  std::vector<std::uint16_t> sizes(ports == 1 ? 2 : 2 * (ports + 1), kQueueSize);
  for (std::size_t i = 2; i < std::min<std::size_t>(4, sizes.size()); ++i) {
    sizes[i] = kControlQueueSize;
  }
  return sizes;
}

bool is_receive(std::uint16_t queue) noexcept { return queue % 2 == 0; }

}  // namespace

Console::Console(EventLoop& loop, const ConsoleOptions& options, Hooks hooks, std::vector<Hooks> named)
    : loop_{loop},
      names_{names_of(options)},
      queue_sizes_{sizes_for(names_.size())},
      lost_(names_.size()),
      control_{names_, [this](std::size_t port, bool open) { ports_[port]->set_open(open); }},
      config_{{.max_ports = static_cast<std::uint32_t>(names_.size())}} {
  hooks.connected = {};  // a console is there whether or not anybody watches it
  ports_.push_back(std::make_unique<ConsolePort>(loop, options.target, ConsolePort::Role::Console, std::move(hooks)));
  control_.set_connected(0, true);
  for (std::size_t i = 1; i < names_.size(); ++i) {
    auto told = i <= named.size() ? std::move(named[i - 1]) : Hooks{};
    told.connected = [this, i](bool connected) { control_.set_connected(i, connected); };
    ports_.push_back(
        std::make_unique<ConsolePort>(loop, options.ports[i - 1].target, ConsolePort::Role::Stream, std::move(told)));
    control_.set_connected(i, ports_.back()->host().connected());
  }
}

std::uint64_t Console::features() const noexcept {
  return kInOrder | kSizeFeature | kEmergencyWrite | (names_.size() > 1 ? kMultiport : 0U);
}

bool Console::multiport() const noexcept { return (accepted_ & kMultiport) != 0; }

void Console::write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  if (offset == kEmergencyOffset && !bytes.empty()) {  // the low byte of emerg_wr is the character
    loop_.call([this, character = bytes.front()] { port().put({&character, 1}); });
  }
}

void Console::start(std::uint64_t features, DriverInterrupts& interrupts) noexcept {
  accepted_ = features & this->features();
  interrupts_ = &interrupts;
}

ConsolePort* Console::port_of(std::uint16_t queue) noexcept {
  if (queue < 2) {
    return ports_.front().get();
  }
  const auto index = static_cast<std::size_t>(queue / 2 - 1);
  return multiport() && index < ports_.size() ? ports_[index].get() : nullptr;
}

void Console::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
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

void Console::notified(std::uint16_t index) noexcept {
  if (multiport() && index == kControlReceive) {
    control_.receive_kicked();
  } else if (multiport() && index == kControlTransmit) {
    control_.transmit_kicked();
  } else if (auto* const port = port_of(index)) {
    is_receive(index) ? port->receive_kicked() : port->transmit_kicked();
  }
}

void Console::stop_queue(std::uint16_t index) noexcept {
  if (multiport() && index == kControlReceive) {
    control_.stop_receive();
  } else if (multiport() && index == kControlTransmit) {
    control_.stop_transmit();
  } else if (auto* const port = port_of(index)) {
    is_receive(index) ? port->stop_receive() : port->stop_transmit();
  }
}

void Console::stop() noexcept {
  control_.stop_receive();
  control_.stop_transmit();
  control_.reset();
  for (const auto& port : ports_) {
    port->stop_receive();
    port->stop_transmit();
    port->set_open(false);
  }
  accepted_ = 0;
  interrupts_ = nullptr;
}

void Console::resize(ConsoleSize size) noexcept {
  if (config_.fields().size == size) {
    return;
  }
  config_.change([size](Config& config) { config.size = size; });
  control_.set_size(size);
  if (interrupts_ != nullptr && (accepted_ & kSizeFeature) != 0) {
    interrupts_->config_changed();
  }
}

std::uint64_t Console::finish(std::chrono::milliseconds patience) noexcept {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    lost_[i] = ports_[i]->finish(std::max(left, std::chrono::milliseconds{}));
  }
  return lost_.front();
}

std::vector<std::string> Console::ptys() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    if (const auto& path = ports_[i]->host().pty_path(); !path.empty()) {
      lines.push_back(i == 0 ? fmt::format("the virtio console is {}", path)
                             : fmt::format("port {} is {}", names_[i], path));
    }
  }
  return lines;
}

std::vector<std::string> Console::troubles() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    if (const auto& trouble = ports_[i]->host().trouble(); !trouble.empty()) {
      lines.push_back(trouble);
    }
    if (i != 0 && lost_[i] != 0) {
      lines.push_back(fmt::format("{} bytes of port {} lost: nobody read them", lost_[i], names_[i]));
    }
  }
  return lines;
}

}  // namespace martlet::virtio
