#include "devices/virtio/mmio.h"

#include <algorithm>
#include <cstring>

namespace martlet::virtio {
namespace {

constexpr std::uint32_t kMagic = 0x74726976;     // "virt"
constexpr std::uint32_t kVersion = 2;            // 1 is the legacy interface
constexpr std::uint32_t kVendor = 0x4c54524d;    // "MRTL"
constexpr std::uint32_t kNoRegion = 0xffffffff;  // half of the length and base of a shared memory region that isn't

// Bits of InterruptStatus and InterruptACK.
constexpr std::uint32_t kUsedBuffers = 1U << 0U;
constexpr std::uint32_t kConfigChange = 1U << 1U;

constexpr std::uint64_t kConfigSpace = 0x100;
constexpr std::size_t kConfigAccess = 4;  // the widest field a driver may rely on to be read at once (§2.5.1)

constexpr std::uint32_t kMaxQueueSize = 0x8000;
constexpr std::uint32_t kMaxStatus = 0xff;

}  // namespace

// Table 4.1: MMIO device register layout.
enum class VirtioMmio::Register : std::uint64_t {
  MagicValue = 0x000,
  Version = 0x004,
  DeviceId = 0x008,
  VendorId = 0x00c,
  DeviceFeatures = 0x010,
  DeviceFeaturesSel = 0x014,
  DriverFeatures = 0x020,
  DriverFeaturesSel = 0x024,
  QueueSel = 0x030,
  QueueNumMax = 0x034,
  QueueNum = 0x038,
  QueueReady = 0x044,
  QueueNotify = 0x050,
  InterruptStatus = 0x060,
  InterruptAck = 0x064,
  Status = 0x070,
  QueueDescLow = 0x080,
  QueueDescHigh = 0x084,
  QueueDriverLow = 0x090,
  QueueDriverHigh = 0x094,
  QueueDeviceLow = 0x0a0,
  QueueDeviceHigh = 0x0a4,
  ShmLenLow = 0x0b0,
  ShmLenHigh = 0x0b4,
  ShmBaseLow = 0x0b8,
  ShmBaseHigh = 0x0bc,
  QueueReset = 0x0c0,
  ConfigGeneration = 0x0fc,
};

VirtioMmio::VirtioMmio(const Wiring& wiring)
    : irq_{wiring.irq},
      doorbells_{wiring.doorbells},
      notify_{wiring.base + static_cast<std::uint64_t>(Register::QueueNotify)},
      state_{wiring.device, wiring.memory, wiring.loop, *this} {
  while (bells_ < state_.queue_count() && doorbells_.add_value(notify_, bells_, state_.queue(bells_)->kick.get())) {
    ++bells_;  // where the host refuses, notifications are exits
  }
}

VirtioMmio::~VirtioMmio() {
  while (bells_ > 0) {
    --bells_;
    doorbells_.remove_value(notify_, bells_, state_.queue(bells_)->kick.get());
  }
}

void VirtioMmio::read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
  if (offset >= kConfigSpace) {
    for (auto at = offset - kConfigSpace; !data.empty(); at += kConfigAccess) {
      const auto part = data.first(std::min(data.size(), kConfigAccess));
      state_.device().read_config(static_cast<std::uint32_t>(at), part);
      data = data.subspan(part.size());
    }
  } else if (data.size() == sizeof(std::uint32_t) && offset % sizeof(std::uint32_t) == 0) {
    const auto value = read_register(Register{offset});
    std::memcpy(data.data(), &value, sizeof value);
  }
}

void VirtioMmio::write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (offset >= kConfigSpace) {
    for (auto at = offset - kConfigSpace; !data.empty(); at += kConfigAccess) {
      const auto part = data.first(std::min(data.size(), kConfigAccess));
      state_.device().write_config(static_cast<std::uint32_t>(at), part);
      data = data.subspan(part.size());
    }
  } else if (data.size() == sizeof(std::uint32_t) && offset % sizeof(std::uint32_t) == 0) {
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    write_register(Register{offset}, value);
  }
}

/// Those that an interrupt handler reads wait for nobody: another vCPU may just be resetting the device.
std::uint32_t VirtioMmio::read_register(Register reg) noexcept {
  switch (reg) {
    case Register::MagicValue:
      return kMagic;
    case Register::Version:
      return kVersion;
    case Register::DeviceId:
      return static_cast<std::uint32_t>(state_.device().id());
    case Register::VendorId:
      return kVendor;
    case Register::InterruptStatus:
      return interrupt_causes_.load(std::memory_order_acquire);
    case Register::Status:
      return state_.status();
    case Register::ConfigGeneration:
      return state_.device().config_generation();
    case Register::ShmLenLow:
    case Register::ShmLenHigh:
    case Register::ShmBaseLow:
    case Register::ShmBaseHigh:
      return kNoRegion;
    default:
      const std::lock_guard lock{mutex_};
      return read_locked(reg);
  }
}

std::uint32_t VirtioMmio::read_locked(Register reg) noexcept {
  const auto* const queue = state_.queue(registers_.queue_select);
  switch (reg) {
    case Register::DeviceFeatures:
      return state_.offered_features(registers_.device_features_select);
    case Register::QueueNumMax:
      return queue != nullptr ? queue->max_size : 0;  // 0: there is no such queue
    case Register::QueueReady:
      return queue != nullptr && queue->enabled ? 1 : 0;
    default:  // write-only, reserved, or QueueReset: a reset is over when its write returns
      return 0;
  }
}

void VirtioMmio::write_register(Register reg, std::uint32_t value) {
  switch (reg) {
    case Register::QueueNotify:
      if (const auto* const queue = state_.queue(value)) {
        signal_eventfd(queue->kick.get());
      }
      return;
    case Register::InterruptAck:
      interrupt_causes_.fetch_and(~value, std::memory_order_acq_rel);
      return;
    default:
      const std::lock_guard lock{mutex_};
      write_locked(reg, value);
  }
}

void VirtioMmio::write_locked(Register reg, std::uint32_t value) {
  using Area = DeviceState::Area;
  const auto queue = registers_.queue_select;
  switch (reg) {
    case Register::DeviceFeaturesSel:
      registers_.device_features_select = value;
      return;
    case Register::DriverFeatures:
      return state_.accept_features(registers_.driver_features_select, value);
    case Register::DriverFeaturesSel:
      registers_.driver_features_select = value;
      return;
    case Register::QueueSel:
      registers_.queue_select = value;
      return;
    case Register::QueueNum:  // what is too large stays wrong: 0 is no size either
      return state_.set_queue_size(queue, static_cast<std::uint16_t>(value <= kMaxQueueSize ? value : 0));
    case Register::QueueReady:
      if (value == 1) {
        state_.enable_queue(queue);
      } else if (value == 0) {
        state_.disable_queue(queue);
      }
      return;
    case Register::Status:
      return write_status(value);
    case Register::QueueDescLow:
      return state_.set_queue_address(queue, Area::Descriptors, 0, value);
    case Register::QueueDescHigh:
      return state_.set_queue_address(queue, Area::Descriptors, 1, value);
    case Register::QueueDriverLow:
      return state_.set_queue_address(queue, Area::Driver, 0, value);
    case Register::QueueDriverHigh:
      return state_.set_queue_address(queue, Area::Driver, 1, value);
    case Register::QueueDeviceLow:
      return state_.set_queue_address(queue, Area::Device, 0, value);
    case Register::QueueDeviceHigh:
      return state_.set_queue_address(queue, Area::Device, 1, value);
    case Register::QueueReset:
      if (value == 1) {
        state_.reset_queue(queue);
      }
      return;
    default:  // read-only or reserved
      return;
  }
}

void VirtioMmio::write_status(std::uint32_t value) {
  if (value > kMaxStatus) {  // not a status; above all not the 0 that its low byte may be
    return;
  }
  state_.write_status(static_cast<std::uint8_t>(value));
  if (value == 0) {
    registers_ = {};
    interrupt_causes_.store(0, std::memory_order_release);  // §4.2.2.1: all of InterruptStatus is clear
  }
}

void VirtioMmio::interrupt(std::uint32_t cause) noexcept {
  if ((state_.status() & kDriverOk) != 0) {  // none before (§3.1.1)
    interrupt_causes_.fetch_or(cause, std::memory_order_acq_rel);
    irq_.raise();
  }
}

void VirtioMmio::queue_used(std::uint16_t /*queue*/) noexcept { interrupt(kUsedBuffers); }

void VirtioMmio::config_changed() noexcept { interrupt(kConfigChange); }

void VirtioMmio::needs_reset() noexcept {
  if (state_.set_needs_reset()) {
    interrupt(kConfigChange);
  }
}

}  // namespace martlet::virtio
