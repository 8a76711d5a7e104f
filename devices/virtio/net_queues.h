#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
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

/// Asked before frames go, and told of the bytes of each.
class NetPace {
 public:
  /// How many may go now; 0 stops the queue until it is run again.
  [[nodiscard]] virtual std::size_t may_go() noexcept = 0;
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

/// The most frames of a transmit queue before others get their turn; a receive queue's turn is one call.
inline constexpr std::size_t kNetTurn = 64;
/// The most frames that go by one call of the backend.
inline constexpr std::size_t kNetBatch = 16;
/// How often a queue that has just run dry is looked at again because more came meanwhile.
inline constexpr int kNetTries = 4;
/// Requests in each queue.
inline constexpr std::uint16_t kNetQueueSize = 256;

/// A frame to the guest, and the chains it takes. It is read straight into the guest's buffers: as many as
/// frames of late have needed, and behind them a buffer of our own for what is longer, so that no frame is ever
/// cut. With mergeable buffers what landed there follows into further ones.
struct NetArrival {
  NetHeader header{};
  std::vector<VirtQueue::Completion> chains{};  ///< all empty, but for what was read
  std::size_t room = 0;                         ///< bytes in them
  std::size_t length = 0;                       ///< what was read, header included; 0: nothing
  std::size_t direct = 0;                       ///< of these bytes so many are in the guest's buffers at most,
  std::size_t direct_chains = 0;                ///< which so many chains have; the rest is in
  std::span<std::byte> overflow{};
  std::vector<iovec> vectors{};

  /// Sets `vectors`: where to read it to, as much as is `expected` into its chains.
  void aim(std::size_t expected) noexcept;
  /// All of it into `overflow`: the chains are empty again.
  void unload() noexcept;
  /// All of it into the chains, which have room; returns how many of them it takes.
  [[nodiscard]] std::size_t fill_chains() noexcept;
};

/// The frames to the guest, by one receive queue (virtio 1.2 §5.1.6.4).
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
  [[nodiscard]] bool add_chain(NetArrival& frame) noexcept;
  void take_chains_from(NetArrival& frame) noexcept;
  [[nodiscard]] std::size_t prepare(std::size_t wanted) noexcept;
  [[nodiscard]] NetWait receive(std::size_t count) noexcept;
  void learn(std::size_t wanted, std::size_t found) noexcept;
  void look_at(NetArrival& frame, std::ptrdiff_t result) noexcept;
  [[nodiscard]] bool deliver_all() noexcept;
  [[nodiscard]] bool deliver() noexcept;
  [[nodiscard]] bool make_room() noexcept;

  NetBackend& backend_;
  std::uint16_t pair_;
  NetPace& pace_;
  NetCounters& counters_;
  std::unique_ptr<VirtQueue> queue_;
  bool mergeable_ = false;
  std::uint32_t offloads_ = 0;

  std::deque<VirtQueue::Completion> spare_;  // chains taken from the queue that no frame has
  std::size_t taken_ = 0;                    // chains, these and the frames'
  std::size_t expected_ = 0;                 // header and frame, as frames of late have been
  std::size_t batch_ = 1;                    // frames to look for at once,
  unsigned patience_ = 1;                    // twice as many after so many
  unsigned full_reads_ = 0;                  // that found them all, in a row
  std::unique_ptr<std::byte[]> overflow_;    // the frames'
  std::vector<NetArrival> frames_;
  std::size_t first_ = 0;  // of those that were read and are not delivered
  std::size_t end_ = 0;    // of all that were read
  std::vector<NetBackend::Transfer> transfers_;
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
  struct Departure {
    std::optional<DescriptorChain> chain{};
    NetHeader header{};
    std::vector<iovec> vectors{};  // `header`, and the rest of what is in `chain`
  };
  [[nodiscard]] NetWait serve(Link link) noexcept;
  [[nodiscard]] std::size_t take() noexcept;
  [[nodiscard]] bool check(Departure& frame) const noexcept;
  [[nodiscard]] NetWait send(std::size_t count) noexcept;
  void finish(Departure& frame) noexcept;

  NetBackend& backend_;
  std::uint16_t pair_;
  NetPace& pace_;
  NetCounters& counters_;
  std::unique_ptr<VirtQueue> queue_;
  std::uint32_t offloads_ = 0;
  std::vector<Departure> frames_;
  std::size_t first_ = 0;  // of those that were checked and have not gone
  std::size_t end_ = 0;    // of all that were checked
  bool full_ = false;
  std::vector<NetBackend::Transfer> transfers_;
};

}  // namespace martlet::virtio
