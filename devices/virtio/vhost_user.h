#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "devices/virtio/queue.h"
#include "vmm/base/fd.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {

/// The front-end's end of a vhost-user socket (the vhost-user protocol of QEMU's documentation): another process
/// maps the guest's memory and serves its rings. One thread at a time.
///
/// Nothing the other side says is trusted: an answer that is not the one expected, or does not come in time, ends
/// the connection for good.
class VhostUser {
 public:
  struct Options {
    std::string path{};       ///< the socket, where the back-end listens
    std::uint16_t pairs = 1;  ///< queue pairs wanted
    std::uint16_t mtu = 0;    ///< told to the back-end, if it listens; 0: not
  };
  struct Wiring {
    int kick = -1;    ///< readable when the driver notifies
    int call = -1;    ///< signalled when buffers were used
    int failed = -1;  ///< signalled when the back-end cannot follow the ring
  };
  enum class Ring { Disabled, Enabled };

  /// Connects, agrees on the protocol and hands over `memory`, which outlives this. Throws HostError.
  VhostUser(const Options& options, const GuestMemory& memory);

  /// The feature bits it can serve, rings' and device's.
  [[nodiscard]] std::uint64_t features() const noexcept { return features_; }
  /// Readable when the back-end has gone, or speaks without being asked.
  [[nodiscard]] int fd() const noexcept { return socket_.get(); }

  // --- False when the back-end has gone, now or before.

  /// What the driver agreed to; while no ring runs.
  [[nodiscard]] bool set_features(std::uint64_t features) noexcept;
  /// The back-end serves the ring until stop().
  [[nodiscard]] bool start(const QueueSetup& setup, const Wiring& wiring, Ring state) noexcept;
  /// Frames go by this ring, or do not. For started rings.
  [[nodiscard]] bool enable(std::uint16_t index, Ring state) noexcept;
  /// When this returns true, nothing of the back-end's touches the ring any more.
  [[nodiscard]] bool stop(std::uint16_t index) noexcept;

 private:
  enum class Request : std::uint32_t;
  struct Message;

  void wait_at_most(int seconds) const;
  void negotiate(const Options& options);
  void hand_over_memory();
  [[nodiscard]] bool send(const Message& message) noexcept;
  [[nodiscard]] bool answer(Request request, std::span<std::byte> payload) noexcept;
  template <class T>
  [[nodiscard]] bool ask(const Message& message, T& into) noexcept;
  [[nodiscard]] std::uint64_t ask_number(Request request, const char* name);
  [[nodiscard]] bool end() noexcept;

  std::string path_;
  const GuestMemory* memory_;
  Fd socket_;
  bool alive_ = true;
  std::uint64_t features_ = 0;
  std::uint64_t protocol_ = 0;
};

}  // namespace martlet::virtio
