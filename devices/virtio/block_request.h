#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/virtio/block_wire.h"

namespace martlet::virtio {

/// One request to a block device, read from guest memory once and checked (virtio 1.2 §5.2.6): nothing of it
/// is looked at there again. Its data stays where it is; only the disk moves that.
struct BlockRequest {
  using Buffer = std::span<std::byte>;

  enum class Write { Allowed, Refused };
  struct Limits {
    std::uint64_t sectors = 0;  ///< the disk's size
    Write write = Write::Allowed;
    std::uint32_t discard_sectors = 0;  ///< of one range; 0: discard is not offered
    std::uint32_t zeroes_sectors = 0;   ///< of one range; 0: write zeroes is not offered
  };
  static constexpr std::size_t kMaxRanges = 16;

  enum class Unmap { No, May };
  /// Part of the disk, in bytes; inside of it.
  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    Unmap unmap = Unmap::No;
  };

  BlockType type = BlockType::In;
  std::byte* status = nullptr;             ///< where its answer goes, in guest memory
  std::optional<BlockStatus> refused{};    ///< its answer, when it is not to be carried out
  std::uint64_t offset = 0;                ///< In, Out: where on the disk, in bytes
  std::uint64_t length = 0;                ///< In, Out, GetId: all of `data`
  std::vector<iovec> data{};               ///< In, GetId: to be written; Out: to be read
  std::array<Range, kMaxRanges> ranges{};  ///< Discard, WriteZeroes
  std::size_t range_count = 0;

  /// Nothing when there is no byte to put a status into. `reuse` saves an allocation: it becomes `data`.
  [[nodiscard]] static std::optional<BlockRequest> parse(std::span<const Buffer> readable,
                                                         std::span<const Buffer> writable, const Limits& limits,
                                                         std::vector<iovec> reuse = {});
};

}  // namespace martlet::virtio
