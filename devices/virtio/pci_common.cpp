#include <algorithm>
#include <cstring>

#include "devices/virtio/pci.h"

namespace martlet::virtio {

/// The common configuration structure, §4.1.4.3. Addresses of queue areas are two words each.
enum class VirtioPci::Common : std::uint16_t {
  DeviceFeatureSelect = 0x00,
  DeviceFeature = 0x04,
  DriverFeatureSelect = 0x08,
  DriverFeature = 0x0c,
  ConfigVector = 0x10,
  QueueCount = 0x12,
  Status = 0x14,
  ConfigGeneration = 0x15,
  QueueSelect = 0x16,
  QueueSize = 0x18,
  QueueVector = 0x1a,
  QueueEnable = 0x1c,
  QueueNotifyOffset = 0x1e,
  Descriptors = 0x20,
  DescriptorsHigh = 0x24,
  Driver = 0x28,
  DriverHigh = 0x2c,
  Device = 0x30,
  DeviceHigh = 0x34,
  QueueNotifyData = 0x38,
  QueueReset = 0x3a,
};

namespace {

void store_register(std::uint32_t value, std::span<std::byte> into) noexcept {
  std::ranges::fill(into, std::byte{0});
  std::memcpy(into.data(), &value, std::min(into.size(), sizeof value));
}

template <class T>
[[nodiscard]] std::uint32_t load(std::span<const std::byte> bytes) noexcept {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

[[nodiscard]] std::uint32_t load_register(std::span<const std::byte> bytes) noexcept {
  switch (bytes.size()) {
    case 1:
      return load<std::uint8_t>(bytes);
    case 2:
      return load<std::uint16_t>(bytes);
    default:
      return load<std::uint32_t>(bytes);
  }
}

/// A driver accesses each field as a whole (§4.1.3.1). Anything else reads as 0 and changes nothing.
[[nodiscard]] std::size_t width(std::uint64_t offset) noexcept {
  constexpr std::uint64_t kStatus = 0x14;
  constexpr std::uint64_t kGeneration = 0x15;
  if (offset == kStatus || offset == kGeneration) {
    return 1;
  }
  const bool word = offset < 0x10 || (offset >= 0x20 && offset < 0x38);
  return word ? 4 : 2;
}

/// The three addresses may be accessed as 64 bits, too.
[[nodiscard]] bool is_address(std::uint64_t offset) noexcept {
  return offset == 0x20 || offset == 0x28 || offset == 0x30;
}

}  // namespace

void VirtioPci::read_common(std::uint64_t offset, std::span<std::byte> into) noexcept {
  if (into.size() == 8 && is_address(offset)) {
    read_common(offset, into.first(4));
    read_common(offset + 4, into.last(4));
  } else if (into.size() == width(offset)) {
    store_register(common(static_cast<Common>(offset)), into);
  }
}

void VirtioPci::write_common(std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  if (bytes.size() == 8 && is_address(offset)) {
    write_common(offset, bytes.first(4));
    write_common(offset + 4, bytes.last(4));
  } else if (bytes.size() == width(offset)) {
    set_common(static_cast<Common>(offset), load_register(bytes));
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
