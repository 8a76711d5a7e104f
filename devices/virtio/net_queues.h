#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "devices/virtio/chain.h"
#include "devices/virtio/net_wire.h"
#include "devices/virtio/queue.h"
#include "net/backend.h"

namespace martlet::virtio {

/// Frames one way, without their headers.
struct NetCounters {
  std::uint64_t frames = 0;
  std::uint64_t bytes = 0;
  std::uint64_t dropped = 0;
};

/// Asked before each frame, and told of its bytes; false stops the queue until it is run again.
class NetPace {
 public:
  [[nodiscard]] virtual bool may_go() noexcept = 0;
  virtual void went(std::uint64_t bytes) noexcept = 0;

 protected:
  ~NetPace() = default;
};

/// Why a queue stopped; who lets it go on.
enum class NetWait {
  Driver,   ///< its notification
  Backend,  ///< its descriptor
  Pace,     ///< NetPace
  Turn,     ///< nobody: it has had its turn, others are next
  Gone,     ///< the backend will never work again
};

/// The most frames of a queue before others get their turn.
inline constexpr int kNetTurn = 64;
/// How often a queue that has just run dry is looked at again because more came meanwhile.
inline constexpr int kNetTries = 4;
/// Requests in each queue.
inline constexpr std::uint16_t kNetQueueSize = 256;

/// The frames to the guest, by one receive queue (virtio 1.2 §5.1.6.4). A frame is read straight into the
/// guest's buffers: as many as frames of late have needed, and behind them a buffer of our own for what is
/// longer, so that no frame is ever cut. With mergeable buffers what landed there follows into further ones.
class NetReceiver {
 public:
  NetReceiver(NetBackend& backend, std::uint16_t pair, NetPace& pace, NetCounters& counters);

  void start(std::unique_ptr<VirtQueue> queue, std::uint64_t features);
  void stop() noexcept;
  [[nodiscard]] bool started() const noexcept { return queue_ != nullptr; }
  void accept(std::uint32_t offloads) noexcept { offloads_ = offloads; }

  [[nodiscard]] NetWait run() noexcept;

 private:
  [[nodiscard]] NetWait serve() noexcept;
  [[nodiscard]] bool add_chain() noexcept;
  [[nodiscard]] std::ptrdiff_t read_frame() noexcept;
  [[nodiscard]] bool deliver() noexcept;
  void move_overflow() noexcept;
  void give_back() noexcept;
  void drop() noexcept;

  NetBackend& backend_;
  std::uint16_t pair_;
  NetPace& pace_;
  NetCounters& counters_;
  std::unique_ptr<VirtQueue> queue_;
  bool mergeable_ = false;
  std::uint32_t offloads_ = 0;

  std::vector<VirtQueue::Completion> chains_;  // taken from the queue, not completed yet; all empty but for held_
  std::size_t room_ = 0;                       // bytes in them
  std::size_t expected_ = 0;                   // header and frame, as frames of late have been
  std::vector<iovec> vectors_;
  NetHeader header_{};
  std::unique_ptr<std::byte[]> overflow_;
  // A frame that was read and lacks buffers; 0: none. Header included.
  std::size_t held_ = 0;
  std::size_t direct_ = 0;         // of these bytes so many went to the guest at once, the rest to overflow_,
  std::size_t direct_chains_ = 0;  // which these chains have taken
};

/// The frames from the guest, by one transmit queue (§5.1.6.2): written from where they are.
class NetTransmitter {
 public:
  NetTransmitter(NetBackend& backend, std::uint16_t pair, NetPace& pace, NetCounters& counters);

  void start(std::unique_ptr<VirtQueue> queue, std::uint64_t features);
  void stop() noexcept;
  [[nodiscard]] bool started() const noexcept { return queue_ != nullptr; }
  /// Waits for `pair`'s descriptor to be writable.
  [[nodiscard]] bool full() const noexcept { return full_; }

  /// With Drop every frame is taken and dropped: the link is down.
  enum class Link { Carry, Drop };
  [[nodiscard]] NetWait run(Link link) noexcept;

 private:
  [[nodiscard]] NetWait serve(Link link) noexcept;
  [[nodiscard]] std::ptrdiff_t send(const DescriptorChain& chain) noexcept;

  NetBackend& backend_;
  std::uint16_t pair_;
  NetPace& pace_;
  NetCounters& counters_;
  std::unique_ptr<VirtQueue> queue_;
  std::uint32_t offloads_ = 0;
  std::optional<DescriptorChain> waiting_;  // for the backend or its pace
  bool full_ = false;
  std::vector<iovec> vectors_;
};

}  // namespace martlet::virtio
