#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/virtio/device.h"

namespace martlet::virtio {

/// Entropy for the guest (virtio 1.2 §5.4), from the host's getrandom(2).
///
/// A request is filled up to kMostPerRequest bytes and given back at once; how far, its length tells. A guest
/// that asks for ever gets kRequestsInARow at a time, so that other devices have their turn.
class Rng final : public VirtioDevice {
 public:
  static constexpr std::uint32_t kMostPerRequest = 64U << 10U;
  static constexpr int kRequestsInARow = 16;

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Entropy; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return kInOrder; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return kSizes; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override;

  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override { stop_queue(0); }

 private:
  static constexpr std::array<std::uint16_t, 1> kSizes{64};

  std::unique_ptr<VirtQueue> queue_;
  int kick_ = -1;
};

}  // namespace martlet::virtio
