#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/block_queue.h"
#include "devices/virtio/block_wire.h"
#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "devices/virtio/disk.h"
#include "devices/virtio/disk_options.h"
#include "devices/virtio/rate_limit.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

/// A virtio block device (virtio 1.2 §5.2) on a disk of the host.
class Block final : public VirtioDevice {
 public:
  static constexpr std::uint16_t kQueueSize = 256;

  /// Opens the disk: throws HostError.
  Block(EventLoop& loop, const DiskOptions& options);
  /// On another disk; of `options`, those that tell how to open one do not matter.
  Block(EventLoop& loop, const DiskOptions& options, std::unique_ptr<Disk> disk);
  ~Block() override;

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Block; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return features_; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override { config_.read(offset, into); }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override;
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return config_.generation(); }

  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override;

  /// The image may have another size now: looks, and tells the guest. On the event loop's thread.
  void resized() noexcept;
  /// Before the guest runs. Throws HostError when the image cannot be written to after all.
  void begin() { disk_->begin(); }

 private:
  void settle() noexcept;
  void update_write_through(const BlockConfig& config) noexcept;

  EventLoop& loop_;
  std::unique_ptr<Disk> disk_;
  Throttle throttle_;
  BlockShared shared_;
  std::uint64_t features_ = 0;
  std::vector<std::uint16_t> queue_sizes_;
  std::vector<std::unique_ptr<BlockQueue>> queues_;  // null: not started
  std::size_t first_ = 0;                            // that settle() begins with: each gets its turn
  DriverInterrupts* interrupts_ = nullptr;
  std::uint64_t accepted_ = 0;
  Fd later_ = make_eventfd();

  DeviceConfig<BlockConfig, kBlockConfigBytes> config_;  // a vCPU writes one byte of it
};

}  // namespace martlet::virtio
