#pragma once
// What a virtio block driver and device say to each other (virtio 1.2 §5.2), bit for bit.

#include <cstddef>
#include <cstdint>

namespace martlet::virtio {

/// Everything on the wire counts in these, whatever the disk's blocks are (§5.2.4).
inline constexpr std::uint64_t kSector = 512;

enum BlockFeature : std::uint64_t {  // §5.2.3
  kBlkSegMax = 1U << 2U,
  kBlkReadOnly = 1U << 5U,
  kBlkBlockSize = 1U << 6U,
  kBlkFlush = 1U << 9U,
  kBlkTopology = 1U << 10U,
  kBlkConfigWce = 1U << 11U,
  kBlkMultiQueue = 1U << 12U,
  kBlkDiscard = 1U << 13U,
  kBlkWriteZeroes = 1U << 14U,
};

struct BlockConfig {  // §5.2.4
  std::uint64_t capacity = 0;
  std::uint32_t size_max = 0;
  std::uint32_t seg_max = 0;
  std::uint32_t geometry = 0;
  std::uint32_t blk_size = 0;
  std::uint8_t physical_block_exp = 0;
  std::uint8_t alignment_offset = 0;
  std::uint16_t min_io_size = 0;
  std::uint32_t opt_io_size = 0;
  std::uint8_t writeback = 0;
  std::uint8_t unused0 = 0;
  std::uint16_t num_queues = 0;
  std::uint32_t max_discard_sectors = 0;
  std::uint32_t max_discard_seg = 0;
  std::uint32_t discard_sector_alignment = 0;
  std::uint32_t max_write_zeroes_sectors = 0;
  std::uint32_t max_write_zeroes_seg = 0;
  std::uint8_t write_zeroes_may_unmap = 0;
  std::uint8_t unused1[3] = {};  // NOLINT(modernize-avoid-c-arrays): a wire struct
};
static_assert(sizeof(BlockConfig) == 64);  // 60 on the wire; the rest is padding
static_assert(offsetof(BlockConfig, writeback) == 32);
static_assert(offsetof(BlockConfig, write_zeroes_may_unmap) == 56);
inline constexpr std::size_t kBlockConfigBytes = 60;

/// §5.2.6
enum class BlockType : std::uint32_t {
  In = 0,
  Out = 1,
  Flush = 4,
  GetId = 8,
  Discard = 11,
  WriteZeroes = 13,
};

struct BlockHeader {
  std::uint32_t type = 0;
  std::uint32_t reserved = 0;
  std::uint64_t sector = 0;
};
static_assert(sizeof(BlockHeader) == 16);

struct BlockRange {  // struct virtio_blk_discard_write_zeroes
  std::uint64_t sector = 0;
  std::uint32_t sectors = 0;
  std::uint32_t flags = 0;
};
static_assert(sizeof(BlockRange) == 16);
inline constexpr std::uint32_t kRangeUnmap = 1;

enum class BlockStatus : std::uint8_t { Ok = 0, IoError = 1, Unsupported = 2 };

}  // namespace martlet::virtio
