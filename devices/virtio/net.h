#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/device_config.h"
#include "devices/virtio/net_control.h"
#include "devices/virtio/net_queues.h"
#include "devices/virtio/net_wire.h"
#include "devices/virtio/rate_limit.h"
#include "devices/virtio/vhost_net.h"
#include "net/backend.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {

/// A network card (virtio 1.2 §5.1) over any NetBackend. The event loop's thread carries the frames, unless
/// vhost-net in the kernel does.
class Net final : public VirtioDevice {
 public:
  struct Options {
    std::array<std::uint8_t, 6> mac{};
    std::uint16_t mtu = 0;                ///< what the guest is told; 0: the backend's
    RateLimits to_guest{};                ///< keeps vhost-net out
    RateLimits from_guest{};              ///< keeps vhost-net out of this direction
    Vhost vhost = Vhost::Off;             ///< with On the host must have it
    const GuestMemory* memory = nullptr;  ///< what vhost-net is given; outlives the device
    std::function<void()> lost{};         ///< no frame will ever come again; on the event loop's thread
  };
  struct Statistics {
    NetCounters received{};  ///< by the guest
    NetCounters sent{};
    std::uint64_t commands = 0;
    std::uint64_t bad_commands = 0;
  };

  /// Throws HostError.
  Net(EventLoop& loop, std::unique_ptr<NetBackend> backend, const Options& options);
  ~Net() override;

  /// On the event loop's thread.
  [[nodiscard]] const Statistics& statistics() const noexcept { return statistics_; }
  /// Plugs the cable in or out. On the event loop's thread.
  enum class Link { Down, Up };
  void set_link(Link link) noexcept;

  [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Net; }
  [[nodiscard]] std::uint64_t features() const noexcept override { return offered_; }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override { config_.read(offset, into); }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return config_.generation(); }
  void start(std::uint64_t features, DriverInterrupts& interrupts) noexcept override;
  void start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int kick) noexcept override;
  [[nodiscard]] bool serves_itself(std::uint16_t index) const noexcept override;
  [[nodiscard]] std::uint64_t refused_ring_features() const noexcept override;
  void notified(std::uint16_t index) noexcept override;
  void stop_queue(std::uint16_t index) noexcept override;
  void stop() noexcept override;

 private:
  /// RateLimits for one direction; every queue of it waits together.
  class Pace final : public NetPace {
   public:
    Pace(EventLoop& loop, const RateLimits& limits, std::function<void()> resume)
        : batch_{limits.any() ? 1 : kNetBatch}, throttle_{loop, limits, std::move(resume)} {}
    [[nodiscard]] std::size_t may_go() noexcept override { return throttle_.ready() ? batch_ : 0; }
    void went(std::uint64_t bytes) noexcept override { throttle_.count(bytes); }
    [[nodiscard]] bool limited() const noexcept { return batch_ == 1; }

   private:
    std::size_t batch_;
    Throttle throttle_;
  };
  struct Pair {
    NetReceiver receiver;
    NetTransmitter transmitter;
    std::optional<VhostNet> vhost{};
    std::array<Fd, 2> called{};  // signalled by vhost-net where the transport has no eventfd for it
    bool wants_input = false;    // the receiver waits for the backend
    bool turn_over = false;      // the transmitter has more to do
    std::uint32_t watched = 0;
  };
  enum class Role { Receive, Transmit, Control, None };

  [[nodiscard]] Role role(std::uint16_t index) const noexcept;
  [[nodiscard]] std::uint16_t control_index() const noexcept;
  void open_vhost(const Options& options);
  [[nodiscard]] bool hand_over(std::uint16_t index, const VirtQueue& queue, int kick) noexcept;
  void receive(std::uint16_t pair) noexcept;
  void transmit(std::uint16_t pair) noexcept;
  void run_everything() noexcept;
  void watch(std::uint16_t pair) noexcept;
  void ready(std::uint16_t pair, std::uint32_t events) noexcept;
  void take_turns() noexcept;
  void backend_gone() noexcept;

  void control() noexcept;
  [[nodiscard]] NetAnswer execute(const DescriptorChain& chain) noexcept;
  [[nodiscard]] bool enable_pairs(std::uint16_t count) noexcept;
  [[nodiscard]] bool accept(std::uint32_t offloads) noexcept;
  void change_config(const std::function<void(NetConfig&)>& change) noexcept;

  EventLoop& loop_;
  std::unique_ptr<NetBackend> backend_;
  std::uint64_t offered_;
  std::vector<std::uint16_t> queue_sizes_;
  std::array<std::uint8_t, 6> mac_;  // after a reset
  Statistics statistics_;
  Pace receive_pace_;
  Pace transmit_pace_;
  std::vector<Pair> pairs_;
  Fd again_ = make_eventfd();  // signalled when a queue has had its turn and has more to do
  Fd vhost_failed_{};          // signalled by vhost-net when it cannot follow a ring
  bool gone_ = false;          // the backend
  std::function<void()> lost_;

  // What the driver knows and set.
  DeviceConfig<NetConfig> config_;
  std::uint64_t features_ = 0;
  std::uint16_t enabled_pairs_ = 1;
  std::unique_ptr<VirtQueue> control_queue_;
  DriverInterrupts* interrupts_ = nullptr;
};

}  // namespace martlet::virtio
