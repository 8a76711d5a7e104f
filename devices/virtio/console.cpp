#include "devices/virtio/console.h"

#include <utility>

namespace martlet::virtio {
namespace {

constexpr std::uint16_t kReceive = 0;  // §5.3.2
constexpr std::uint32_t kEmergencyOffset = offsetof(ConsoleConfig, emergency_write);

}  // namespace

Console::Console(EventLoop& loop, const SerialTarget& target, ConsolePort::Hooks hooks)
    : loop_{loop}, port_{loop, target, ConsolePort::Role::Console, std::move(hooks)} {}

std::uint64_t Console::features() const noexcept { return kInOrder | kConsoleSize | kConsoleEmergencyWrite; }

void Console::write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  if (offset == kEmergencyOffset && !bytes.empty()) {  // the low byte of emerg_wr is the character
    loop_.call([this, character = bytes.front()] { port_.put({&character, 1}); });
  }
}

void Console::start(std::uint64_t features, DriverInterrupts& interrupts) noexcept {
  accepted_ = features;
  interrupts_ = &interrupts;
}

void Console::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept {
  if (index == kReceive) {
    port_.start_receive(std::move(queue), kick);
    port_.set_open(true);  // nobody will tell
  } else {
    port_.start_transmit(std::move(queue), kick);
  }
}

void Console::notified(std::uint16_t index) noexcept {
  index == kReceive ? port_.receive_kicked() : port_.transmit_kicked();
}

void Console::stop_queue(std::uint16_t index) noexcept {
  index == kReceive ? port_.stop_receive() : port_.stop_transmit();
}

void Console::stop() noexcept {
  port_.stop_receive();
  port_.stop_transmit();
  port_.set_open(false);
  accepted_ = 0;
  interrupts_ = nullptr;
}

void Console::resize(ConsoleSize size) noexcept {
  if (config_.fields().size == size) {
    return;
  }
  config_.change([size](ConsoleConfig& config) { config.size = size; });
  if (interrupts_ != nullptr && (accepted_ & kConsoleSize) != 0) {
    interrupts_->config_changed();
  }
}

}  // namespace martlet::virtio
