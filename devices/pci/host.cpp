#include "devices/pci/host.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

class HostBridge final : public PciFunction {
 public:
  HostBridge()
      : PciFunction{{
            .vendor = 0x1b36,       // Red Hat
            .device = 0x0008,       // generic PCIe host bridge
            .class_code = 0x060000  // bridge, host
        }} {}
};

// An address of the ECAM: bus (absent here), device, function, register.
constexpr unsigned kDeviceShift = 15;
constexpr std::uint64_t kFunctionMask = 7U << 12U;
constexpr std::uint64_t kRegisterMask = 0xfff;

// An address in 0xcf8: enable, bus, device, function, register; the other bits read as 0.
constexpr std::uint32_t kEnable = 1U << 31U;
constexpr std::uint32_t kAddressBits = kEnable | 0x00fffffcU;
constexpr std::uint32_t kBusMask = 0x00ff0000;
constexpr std::uint32_t kSlotMask = 0x0000ff00;  // device and function
constexpr unsigned kSlotToEcam = 4;
constexpr std::uint32_t kDoublewordMask = 0xfc;

constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

void all_ones(std::span<std::byte> data) noexcept { std::ranges::fill(data, std::byte{0xff}); }

}  // namespace

PciHost::PciHost(const GuestRange& window)
    : range_{window}, next_{raw(window.start)}, bridge_{std::make_unique<HostBridge>()} {
  functions_[count_++] = bridge_.get();
}

PciHost::~PciHost() = default;

std::uint8_t PciHost::add(PciFunction& function) {
  if (count_ == kDevices) {
    throw HostError{"PCI: more than 31 devices, but the bus has no place for another one; leave some out"};
  }
  for (unsigned bar = 0; bar < PciConfig::kBarCount; ++bar) {
    const std::uint64_t size = function.bar_size(bar);
    if (size == 0) {
      continue;
    }
    const auto start = (next_ + size - 1) / size * size;
    if (start + size > range_.end()) {
      throw HostError{"PCI: the devices' memory does not fit into the MMIO window; leave some devices out"};
    }
    function.place_bar(bar, static_cast<std::uint32_t>(start));
    next_ = start + size;
  }
  function.set_window(range_);
  function.set_interrupt_line(static_cast<std::uint8_t>(gsi(count_)));
  functions_[count_] = &function;
  return count_++;
}

/// Null if nobody answers there: other functions than 0, or an access over the end of one's 4 KiB.
PciFunction* PciHost::function_at(std::uint64_t ecam_offset, std::size_t length) const noexcept {
  if (ecam_offset >= kEcamSize || (ecam_offset & kFunctionMask) != 0 ||
      (ecam_offset & kRegisterMask) + length > kRegisterMask + 1) {
    return nullptr;
  }
  return functions_[ecam_offset >> kDeviceShift];
}

void PciHost::read_config(std::uint64_t offset, std::span<std::byte> data) noexcept {
  if (auto* const function = function_at(offset, data.size())) {
    function->read_config(static_cast<std::uint32_t>(offset & kRegisterMask), data);
  } else {
    all_ones(data);
  }
}

void PciHost::write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (auto* const function = function_at(offset, data.size())) {
    function->write_config(static_cast<std::uint32_t>(offset & kRegisterMask), data);
  }
}

/// Only as a whole: a byte at 0xcf9 is a reset register on PCs, and none of ours.
void PciHost::read_address(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const auto address = config_address_.load(std::memory_order_relaxed);
  if (offset == 0 && data.size() == sizeof address) {
    std::memcpy(data.data(), &address, sizeof address);
  } else {
    all_ones(data);
  }
}

void PciHost::write_address(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  std::uint32_t address = 0;
  if (offset == 0 && data.size() == sizeof address) {
    std::memcpy(&address, data.data(), sizeof address);
    config_address_.store(address & kAddressBits, std::memory_order_relaxed);
  }
}

/// Where the ECAM has what 0xcf8 selects.
std::uint64_t PciHost::selected(std::uint64_t port_offset) const noexcept {
  const auto address = config_address_.load(std::memory_order_relaxed);
  if ((address & kEnable) == 0 || (address & kBusMask) != 0) {
    return kNowhere;
  }
  return (std::uint64_t{address & kSlotMask} << kSlotToEcam) + (address & kDoublewordMask) + port_offset;
}

void PciHost::read_data(std::uint64_t offset, std::span<std::byte> data) noexcept {
  read_config(selected(offset), data);
}

void PciHost::write_data(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  write_config(selected(offset), data);
}

/// A guest may place BARs over one another: the lowest device number answers.
void PciHost::read_memory(std::uint64_t offset, std::span<std::byte> data) noexcept {
  for (std::size_t i = 1; i < count_; ++i) {
    if (const auto hit = functions_[i]->decode(range_.start + offset, data.size())) {
      functions_[i]->read_bar(hit->bar, hit->offset, data);
      return;
    }
  }
  all_ones(data);
}

void PciHost::write_memory(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  for (std::size_t i = 1; i < count_; ++i) {
    if (const auto hit = functions_[i]->decode(range_.start + offset, data.size())) {
      functions_[i]->write_bar(hit->bar, hit->offset, data);
      return;
    }
  }
}

}  // namespace martlet
