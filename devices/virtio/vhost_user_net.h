#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "devices/virtio/net_wire.h"
#include "devices/virtio/vhost_user.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

/// A network card (virtio 1.2 §5.1) whose frames another process carries, by vhost-user: only the configuration
/// space and the control queue are served here. When the back-end goes, the cable is out for good.
class VhostUserNet final : public VirtioDevice {
 public:
  struct Options {
    VhostUser::Options back_end{};
    std::array<std::uint8_t, 6> mac{};
    std::function<void()> lost{};  ///< the back-end has gone; on the event loop's thread
  };

  /// `memory` outlives the device. Throws HostError.
  VhostUserNet(EventLoop& loop, const GuestMemory& memory, const Options& options);
  ~VhostUserNet() override;

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Net; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return offered_; }
  [[nodiscard]] std::uint64_t refused_ring_features() const noexcept override;
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override { config_.read(offset, into); }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return config_.generation(); }
  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  [[nodiscard]] bool serves_itself(std::uint16_t index) const noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override;

 private:
  [[nodiscard]] std::uint16_t control_index() const noexcept;
  [[nodiscard]] std::uint16_t rings() const noexcept { return static_cast<std::uint16_t>(running_.size()); }
  [[nodiscard]] VhostUser::Ring wanted(std::uint16_t index) const noexcept;
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept;
  void gone() noexcept;

  EventLoop& loop_;
  std::function<void()> lost_;
  VhostUser back_end_;
  std::uint64_t offered_;
  std::uint16_t pairs_;
  std::vector<std::uint16_t> queue_sizes_;
  std::vector<Fd> called_;      // by ring, where the transport has no eventfd for it
  std::vector<bool> running_;   // by ring: the back-end has it
  Fd failed_ = make_eventfd();  // signalled by the back-end when it cannot follow a ring
  bool gone_ = false;
  DeviceConfig<NetConfig> config_;
  std::uint64_t features_ = 0;
  std::uint16_t enabled_pairs_ = 1;
  std::unique_ptr<VirtQueue> control_queue_;
  int control_kick_ = -1;
  DriverInterrupts* interrupts_ = nullptr;
};

}  // namespace martlet::virtio
