#include "devices/virtio/block.h"

#include <sys/epoll.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "devices/virtio/disk_open.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

// A range is one system call, unless the file system knows no better than to write zeroes: 32 MiB of those
// is what a reset may have to wait for.
constexpr std::uint32_t kMaxDiscardSectors = 1U << 22U;
constexpr std::uint32_t kMaxZeroesSectors = 1U << 16U;

std::uint64_t features_of(const DiskOptions& options) {
  std::uint64_t features = kBlkSegMax | kBlkBlockSize | kBlkFlush | kBlkTopology | kBlkConfigWce;
  if (options.queues > 1) {
    features |= kBlkMultiQueue;
  }
  if (options.access == DiskAccess::ReadOnly) {
    features |= kBlkReadOnly;
  } else {
    features |= kBlkDiscard | kBlkWriteZeroes;
  }
  return features;
}

BlockConfig config_of(const DiskOptions& options, const DiskShape& shape) {
  const auto logical = options.block_size != 0 ? options.block_size : shape.logical_block;
  const auto physical = std::max(shape.physical_block, logical);
  BlockConfig config;
  config.capacity = shape.size / kSector;
  config.seg_max = Block::kQueueSize - 2;  // one descriptor for the header, one for the status
  config.blk_size = logical;
  config.physical_block_exp = static_cast<std::uint8_t>(std::countr_zero(physical / logical));
  config.min_io_size = static_cast<std::uint16_t>(physical / logical);
  config.writeback = 1;
  config.num_queues = options.queues;
  if (options.access == DiskAccess::ReadWrite) {
    config.max_discard_sectors = kMaxDiscardSectors;
    config.max_discard_seg = BlockRequest::kMaxRanges;
    config.discard_sector_alignment = static_cast<std::uint32_t>(physical / kSector);
    config.max_write_zeroes_sectors = kMaxZeroesSectors;
    config.max_write_zeroes_seg = BlockRequest::kMaxRanges;
    config.write_zeroes_may_unmap = 1;
  }
  return config;
}

}  // namespace

Block::Block(EventLoop& loop, const DiskOptions& options) : Block{loop, options, open_disk(loop, options)} {}

Block::Block(EventLoop& loop, const DiskOptions& options, std::unique_ptr<Disk> disk)
    : loop_{loop},
      disk_{std::move(disk)},
      throttle_{loop, options.limits, [this] { settle(); }},
      shared_{.disk = *disk_, .throttle = throttle_, .serial = options.serial},
      features_{features_of(options)},
      queue_sizes_(options.queues, kQueueSize),
      queues_(options.queues),
      config_{config_of(options, disk_->shape())} {
  shared_.limits = {
      .sectors = config_.fields().capacity,
      .write = options.access == DiskAccess::ReadWrite ? BlockRequest::Write::Allowed : BlockRequest::Write::Refused,
      .discard_sectors = config_.fields().max_discard_sectors,
      .zeroes_sectors = config_.fields().max_write_zeroes_sectors};
  shared_.later = [this] { signal_eventfd(later_.get()); };
  disk_->on_settled([this] { settle(); });
  loop_.watch(later_.get(), EPOLLIN, [this](std::uint32_t) {
    drain_counter(later_.get());
    shared_.bytes_left = BlockShared::kBytesATurn;
    settle();
  });
}

Block::~Block() {
  stop();
  disk_->on_settled(nullptr);
  try {
    loop_.unwatch(later_.get());
  } catch (const HostError&) {  // it is ours and open: nothing to do if epoll disagrees
  }
}

/// The driver may write one byte of it (§5.2.5): writeback.
void Block::write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  constexpr std::uint32_t kWriteback = offsetof(BlockConfig, writeback);
  if (offset > kWriteback || bytes.size() <= kWriteback - offset) {
    return;
  }
  config_.locked([&](BlockConfig& config) {
    config.writeback = std::to_integer<std::uint8_t>(bytes[kWriteback - offset]) & 1U;
    update_write_through(config);
  });
}

/// With the lock held, which guards accepted_ too.
void Block::update_write_through(const BlockConfig& config) noexcept {
  const bool can_flush = (accepted_ & (kBlkFlush | kBlkConfigWce)) != 0;
  const bool asked = (accepted_ & kBlkConfigWce) != 0 && config.writeback == 0;
  shared_.write_through.store(!can_flush || asked, std::memory_order_relaxed);
}

void Block::start(std::uint64_t features, DriverInterrupts& interrupts) noexcept {
  interrupts_ = &interrupts;
  config_.locked([&](const BlockConfig& config) {
    accepted_ = features;
    update_write_through(config);
  });
}

void Block::start_queue(std::uint16_t index, std::unique_ptr<VirtQueue> queue, int /*kick*/) noexcept {
  if (index < queues_.size()) {
    queues_[index] = std::make_unique<BlockQueue>(shared_, std::move(queue));
    queues_[index]->service();
  }
}

void Block::notified(std::uint16_t index) noexcept {
  if (index < queues_.size() && queues_[index]) {
    queues_[index]->service();
  }
}

void Block::stop_queue(std::uint16_t index) noexcept {
  if (index < queues_.size()) {
    queues_[index].reset();
  }
}

void Block::stop() noexcept {
  for (auto& queue : queues_) {
    queue.reset();
  }
  interrupts_ = nullptr;
  config_.locked([](BlockConfig& config) { config.writeback = 1; });
}

void Block::resized() noexcept {
  disk_->refresh();
  const auto sectors = disk_->shape().size / kSector;
  if (sectors == shared_.limits.sectors) {
    return;
  }
  shared_.limits.sectors = sectors;
  config_.change([sectors](BlockConfig& config) { config.capacity = sectors; });
  if (interrupts_ != nullptr) {
    interrupts_->config_changed();
  }
}

void Block::settle() noexcept {
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    if (auto& queue = queues_[(first_ + i) % queues_.size()]) {
      queue->settle();
    }
  }
  first_ = (first_ + 1) % queues_.size();
  disk_->commit();
}

}  // namespace martlet::virtio
