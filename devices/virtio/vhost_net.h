#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "devices/virtio/queue.h"
#include "vmm/base/fd.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

/// One queue pair in the kernel's hands (/dev/vhost-net): it moves frames between the guest's rings and a TAP
/// without a system call of ours. Split rings only.
class VhostNet {
 public:
  enum class Ring : unsigned { Receive = 0, Transmit = 1 };
  struct Wiring {
    int kick = -1;     ///< readable when the driver notifies
    int call = -1;     ///< signalled when buffers were used
    int failed = -1;   ///< signalled when the kernel cannot follow the ring
    int backend = -1;  ///< NetBackend::vhost_fd()
  };

  /// Nothing when this host has no vhost-net that we may use. Throws HostError on other trouble. `memory` outlives
  /// this.
  [[nodiscard]] static std::optional<VhostNet> open(const GuestMemory& memory);
  /// Why open() found nothing, and what to do.
  static constexpr const char* kMissing =
      "/dev/vhost-net: cannot be opened; load it and allow it: modprobe vhost_net "
      "&& chmod 666 /dev/vhost-net, or leave vhost=on out";

  /// The feature bits it can serve, rings' and device's.
  [[nodiscard]] std::uint64_t features() const noexcept { return features_; }

  /// The kernel serves the ring until stop(). False when it cannot: then nobody does. At a malformed chain it stands
  /// still, as at a ring that it cannot follow.
  [[nodiscard]] bool start(Ring ring, const QueueSetup& setup, const Wiring& wiring) noexcept;
  /// When this returns, nothing of the kernel's touches the ring any more.
  void stop(Ring ring) noexcept;
  [[nodiscard]] bool running(Ring ring) const noexcept { return running_[static_cast<unsigned>(ring)]; }

 private:
  VhostNet(Fd fd, const GuestMemory& memory);

  Fd fd_;
  const GuestMemory* memory_;
  std::uint64_t features_ = 0;
  std::uint64_t accepted_ = 0;
  std::array<bool, 2> running_{};
};

}  // namespace martlet::virtio
