#include <algorithm>
#include <cstring>

#include "devices/virtio/pci.h"

namespace martlet::virtio {

using pci_layout::Common;

namespace {

void store_register(std::uint32_t value, std::span<std::byte> into) noexcept {
  std::ranges::fill(into, std::byte{0});
  std::memcpy(into.data(), &value, std::min(into.size(), sizeof value));
}

[[nodiscard]] std::uint32_t load_register(std::span<const std::byte> bytes) noexcept {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

/// The three addresses: two words each, or 64 bits at once.
[[nodiscard]] constexpr bool is_address(Common field) noexcept {
  return field == Common::Descriptors || field == Common::Driver || field == Common::Device;
}

/// A driver accesses each field as a whole (§4.1.3.1). Anything else reads as 0 and changes nothing.
[[nodiscard]] constexpr std::size_t width(Common field) noexcept {
  if (field == Common::Status || field == Common::ConfigGeneration) {
    return 1;
  }
  const bool word = field < Common::ConfigVector || (field >= Common::Descriptors && field < Common::QueueNotifyData);
  return word ? 4 : 2;
}

}  // namespace

void VirtioPci::read_common(std::uint64_t offset, std::span<std::byte> into) noexcept {
  const auto field = static_cast<Common>(offset);
  if (into.size() == 8 && is_address(field)) {
    read_common(offset, into.first(4));
    read_common(offset + 4, into.last(4));
  } else if (into.size() == width(field)) {
    store_register(common(field), into);
  }
}

void VirtioPci::write_common(std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  const auto field = static_cast<Common>(offset);
  if (bytes.size() == 8 && is_address(field)) {
    write_common(offset, bytes.first(4));
    write_common(offset + 4, bytes.last(4));
  } else if (bytes.size() == width(field)) {
    set_common(field, load_register(bytes));
  }
}

std::uint32_t VirtioPci::common(Common field) const noexcept {
  switch (field) {
    case Common::DeviceFeatureSelect:
      return registers_.device_feature_select;
    case Common::DeviceFeature:
      return state_.offered_features(registers_.device_feature_select);
    case Common::DriverFeatureSelect:
      return registers_.driver_feature_select;
    case Common::DriverFeature:
      return state_.accepted_features(registers_.driver_feature_select);
    case Common::ConfigVector:
      return registers_.config_vector;
    case Common::QueueCount:
      return state_.queue_count();
    case Common::Status:
      return state_.status();
    case Common::ConfigGeneration:
      return state_.device().config_generation();
    case Common::QueueSelect:
      return registers_.queue_select;
    default:
      return queue_field(field);
  }
}

/// Of the selected queue. One that does not exist has size 0 and nothing else either.
std::uint32_t VirtioPci::queue_field(Common field) const noexcept {
  const auto* const queue = state_.queue(registers_.queue_select);
  if (queue == nullptr) {
    return field == Common::QueueVector ? kNoVector : 0;
  }
  const auto high = [](std::uint64_t address) { return static_cast<std::uint32_t>(address >> 32U); };
  switch (field) {
    case Common::QueueSize:
      return queue->size;
    case Common::QueueVector:
      return registers_.queue_vectors[registers_.queue_select];
    case Common::QueueEnable:
      return queue->enabled ? 1 : 0;
    case Common::QueueNotifyOffset:
    case Common::QueueNotifyData:
      return registers_.queue_select;
    case Common::Descriptors:
      return static_cast<std::uint32_t>(queue->descriptors);
    case Common::DescriptorsHigh:
      return high(queue->descriptors);
    case Common::Driver:
      return static_cast<std::uint32_t>(queue->driver);
    case Common::DriverHigh:
      return high(queue->driver);
    case Common::Device:
      return static_cast<std::uint32_t>(queue->device);
    case Common::DeviceHigh:
      return high(queue->device);
    default:  // QueueReset: done before the driver can ask (§4.1.4.3.1); or no register at all
      return 0;
  }
}

void VirtioPci::set_common(Common field, std::uint32_t value) {
  switch (field) {
    case Common::DeviceFeatureSelect:
      registers_.device_feature_select = value;
      break;
    case Common::DriverFeatureSelect:
      registers_.driver_feature_select = value;
      break;
    case Common::DriverFeature:
      state_.accept_features(registers_.driver_feature_select, value);
      break;
    case Common::ConfigVector:
      registers_.config_vector = checked_vector(value);
      break;
    case Common::Status:
      set_status(static_cast<std::uint8_t>(value));
      break;
    case Common::QueueSelect:
      registers_.queue_select = static_cast<std::uint16_t>(value);
      break;
    default:
      set_queue_field(field, value);
      break;
  }
}

void VirtioPci::set_queue_field(Common field, std::uint32_t value) {
  using Area = DeviceState::Area;
  const auto index = registers_.queue_select;
  switch (field) {
    case Common::QueueSize:
      state_.set_queue_size(index, static_cast<std::uint16_t>(value));
      break;
    case Common::QueueVector:
      if (index < registers_.queue_vectors.size()) {
        registers_.queue_vectors[index] = checked_vector(value);
      }
      break;
    case Common::QueueEnable:
      if (value == 1) {  // a driver must not write 0, §4.1.4.3.2
        state_.enable_queue(index);
        settle_doorbells();
      }
      break;
    case Common::Descriptors:
    case Common::DescriptorsHigh:
      state_.set_queue_address(index, Area::Descriptors, field == Common::DescriptorsHigh ? 1 : 0, value);
      break;
    case Common::Driver:
    case Common::DriverHigh:
      state_.set_queue_address(index, Area::Driver, field == Common::DriverHigh ? 1 : 0, value);
      break;
    case Common::Device:
    case Common::DeviceHigh:
      state_.set_queue_address(index, Area::Device, field == Common::DeviceHigh ? 1 : 0, value);
      break;
    case Common::QueueReset:
      if (value == 1) {
        reset_queue(index);
      }
      break;
    default:  // read-only, or no register at all
      break;
  }
}

void VirtioPci::reset_queue(std::uint16_t index) {
  const auto* const queue = state_.queue(index);
  const bool was_enabled = queue != nullptr && queue->enabled;
  state_.reset_queue(index);
  if (was_enabled && !queue->enabled) {
    registers_.queue_vectors[index] = kNoVector;
    settle_doorbells();
  }
}

void VirtioPci::set_status(std::uint8_t value) {
  state_.write_status(value);
  if (value == 0) {
    registers_.reset();
    settle_doorbells();
  }
}

/// A vector that does not exist cannot be joined, and that is what the driver reads back (§4.1.5.1.2.1).
std::uint16_t VirtioPci::checked_vector(std::uint32_t value) const noexcept {
  const auto vector = static_cast<std::uint16_t>(value);
  return msix_.line(vector) != nullptr ? vector : kNoVector;
}

}  // namespace martlet::virtio
