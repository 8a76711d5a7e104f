#pragma once
// Sequential access to a chain's buffers: drivers may split a request anywhere (virtio 1.2 §2.6.4), so no
// device looks at single buffers.
//
//   ChainReader in{*chain};
//   const auto header = in.read<BlockHeader>();      // a checked copy, or nothing if the chain is too short
//   ChainWriter out{*chain};
//   auto status = out.take_last(1);                  // where block wants its status; `out` ends before it
//   std::array<iovec, 64> vectors;
//   const auto data = out.take(vectors);             // the rest in place, for readv() or io_uring

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>

#include "devices/virtio/queue.h"

namespace martlet::virtio {

/// A position in a run of buffers, and an end. Copies are cheap and go on independently. Valid until the chain is
/// completed, also when it is moved meanwhile.
class ChainCursor {
 public:
  using Buffer = DescriptorChain::Buffer;
  static constexpr std::uint64_t kAll = std::numeric_limits<std::uint64_t>::max();

  /// Bytes to the end.
  [[nodiscard]] std::uint64_t remaining() const noexcept { return remaining_; }
  /// Bytes passed so far, copied, skipped or taken.
  [[nodiscard]] std::uint64_t passed() const noexcept { return passed_; }
  /// Passes up to `bytes`; returns how many there were.
  std::uint64_t skip(std::uint64_t bytes) noexcept;
  /// Forgets all after the next `bytes`.
  void truncate(std::uint64_t bytes) noexcept;
  /// Passes up to `bytes`, in place: fills the front of `into` and returns that. When `into` is too short, there
  /// is more to take.
  [[nodiscard]] std::span<iovec> take(std::span<iovec> into, std::uint64_t bytes = kAll) noexcept;
  /// Passes the rest of the current buffer, in place, at most `bytes`; empty at the end.
  [[nodiscard]] std::span<std::byte> take_span(std::uint64_t bytes = kAll) noexcept;

 protected:
  ChainCursor(std::span<const Buffer> buffers, std::uint64_t bytes) noexcept : buffers_{buffers}, remaining_{bytes} {}

 private:
  std::span<const Buffer> buffers_;  // from the current one
  std::size_t offset_ = 0;           // in the current one
  std::uint64_t remaining_;
  std::uint64_t passed_ = 0;
};

/// What the driver gave the device to read.
class ChainReader final : public ChainCursor {
 public:
  explicit ChainReader(const DescriptorChain& chain) noexcept : ChainCursor{chain.readable(), chain.readable_bytes()} {}

  /// Copies up to into.size() bytes; returns how many there were.
  std::size_t copy(std::span<std::byte> into) noexcept;

  /// A copy of the next sizeof(T) bytes; nothing, and nothing passed, when there are fewer.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] std::optional<T> read() noexcept {
    if (remaining() < sizeof(T)) {
      return std::nullopt;
    }
    T value{};
    copy(std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
};

/// What the driver gave the device to write.
class ChainWriter final : public ChainCursor {
 public:
  explicit ChainWriter(const DescriptorChain& chain) noexcept : ChainCursor{chain.writable(), chain.writable_bytes()} {}

  /// Copies as much of `bytes` as there is room for; returns how many.
  std::size_t copy(std::span<const std::byte> bytes) noexcept;
  /// Writes up to `bytes` zeroes; returns how many there was room for.
  std::uint64_t zero(std::uint64_t bytes) noexcept;

  /// False, and nothing written, when there is not room for all of `value`.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool write(const T& value) noexcept {
    if (remaining() < sizeof(T)) {
      return false;
    }
    copy(std::as_bytes(std::span{&value, 1}));
    return true;
  }

  /// The last `bytes` of all, on their own; this writer then ends before them. Nothing when there are fewer.
  [[nodiscard]] std::optional<ChainWriter> take_last(std::uint64_t bytes) noexcept;
};

}  // namespace martlet::virtio
