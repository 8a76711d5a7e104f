#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

namespace martlet {

/// What the receiver of a frame can finish by itself: a checksum left open, a frame larger than the MTU.
enum Offload : std::uint32_t {
  kChecksum = 1U << 0U,
  kTso4 = 1U << 1U,
  kTso6 = 1U << 2U,
  kTsoEcn = 1U << 3U,
  kUfo = 1U << 4U,
  kUso = 1U << 5U,
};

/// Whether vhost-net, in the host's kernel, carries the frames.
enum class Vhost {
  Auto,  ///< if the host has it
  On,    ///< or refuse to start
  Off,
};

/// Carries Ethernet frames between a virtio-net device and the world: a TAP, a user-mode network, a capture
/// around another backend. Used by one thread, and it never blocks.
///
/// In front of each frame, both ways, goes a `struct virtio_net_hdr_v1` (virtio 1.2 §5.1.6), little-endian;
/// its num_buffers means nothing here. A backend without offloads sends and expects headers of zeros.
///
/// A pair is one queue each way. How frames are spread over the enabled pairs is the backend's business;
/// those of one flow stay in order.
class NetBackend {
 public:
  static constexpr std::size_t kHeaderSize = 12;
  /// The longest frame, without header: a 64 KiB IP packet, its Ethernet header and a VLAN tag.
  static constexpr std::size_t kMaxFrame = 65535 + 14 + 4;

  NetBackend() = default;
  NetBackend(const NetBackend&) = delete;
  NetBackend& operator=(const NetBackend&) = delete;
  virtual ~NetBackend() = default;

  // --- These never change.

  /// Queue pairs, at least 1.
  [[nodiscard]] virtual std::uint16_t pairs() const noexcept = 0;
  /// Offload bits that it takes in send() and, if the guest wants them, uses in receive().
  [[nodiscard]] virtual std::uint32_t offloads() const noexcept = 0;
  /// The largest IP packet, in bytes.
  [[nodiscard]] virtual std::uint16_t mtu() const noexcept = 0;
  /// The descriptor that is readable (writable) when receive() (send()) for `pair` has something to do.
  [[nodiscard]] virtual int fd(std::uint16_t pair) const noexcept = 0;
  /// A descriptor that vhost-net may take `pair`'s frames from, by itself; -1 when they must come by here.
  [[nodiscard]] virtual int vhost_fd(std::uint16_t /*pair*/) const noexcept { return -1; }

  /// The descriptor that is readable when the link may have gone up or down; -1: it is up for good.
  [[nodiscard]] virtual int link_fd() const noexcept { return -1; }

  // --- As the driver asks.

  /// Received frames may need these from now on, a subset of offloads(). False when the host refuses.
  [[nodiscard]] virtual bool set_offloads(std::uint32_t offloads) noexcept = 0;
  /// Frames come and go by the first `count` pairs from now on; the others' descriptors are not to be
  /// watched. 1 at first. False when the host refuses: nothing has changed then.
  [[nodiscard]] virtual bool enable_pairs(std::uint16_t count) noexcept = 0;

  /// Whether the link is up; to be asked when link_fd() says so.
  [[nodiscard]] virtual bool refresh_link() noexcept { return true; }

  // --- Frames. The bytes that went, or a negative errno: EAGAIN says "not now", see fd(); ENODEV that no
  // frame will ever come again (the link is down for good); others that this frame is lost.

  /// One frame and its header, cut off if it is longer than `into`.
  [[nodiscard]] virtual std::ptrdiff_t receive(std::uint16_t pair, std::span<const iovec> into) noexcept = 0;
  /// One frame and its header. The header is right: whoever calls has checked what a guest put there.
  [[nodiscard]] virtual std::ptrdiff_t send(std::uint16_t pair, std::span<const iovec> frame) noexcept = 0;

  // --- Several frames, in order, by one system call where the backend knows how.

  struct Transfer {
    std::span<const iovec> vectors{};
    std::ptrdiff_t result = 0;
  };
  /// As receive() for each. There may be frames after one whose result is EAGAIN: they came in meanwhile.
  virtual void receive_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
    for (auto& transfer : transfers) {
      transfer.result = receive(pair, transfer.vectors);
    }
  }
  /// As send() for each until one's result is EAGAIN or ENODEV: the rest get the same, and are not sent.
  virtual void send_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
    std::ptrdiff_t stopped = 0;
    for (auto& transfer : transfers) {
      transfer.result = stopped != 0 ? stopped : send(pair, transfer.vectors);
      stopped = transfer.result == -EAGAIN || transfer.result == -ENODEV ? transfer.result : 0;
    }
  }
};

}  // namespace martlet
