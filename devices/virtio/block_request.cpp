#include "devices/virtio/block_request.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace martlet::virtio {
namespace {

using Buffer = BlockRequest::Buffer;

std::uint64_t total(std::span<const Buffer> buffers) {
  std::uint64_t bytes = 0;
  for (const auto& buffer : buffers) {
    bytes += buffer.size();
  }
  return bytes;
}

/// Calls `each` with the parts of `buffers` that hold bytes [from, from + length). However the driver cut its
/// request into descriptors, it means the same (§2.6.4: no assumptions about framing).
template <class F>
void for_each_part(std::span<const Buffer> buffers, std::uint64_t from, std::uint64_t length, F each) {
  for (const auto& buffer : buffers) {
    if (length == 0) {
      return;
    }
    if (from >= buffer.size()) {
      from -= buffer.size();
      continue;
    }
    const auto part = std::min<std::uint64_t>(buffer.size() - from, length);
    each(buffer.subspan(from, part));
    from = 0;
    length -= part;
  }
}

/// Copies a T out at `from`; the caller knows that it is there.
template <class T>
T copy_at(std::span<const Buffer> buffers, std::uint64_t from) {
  T value;
  auto* to = reinterpret_cast<std::byte*>(&value);
  for_each_part(buffers, from, sizeof(T), [&](Buffer part) {
    std::memcpy(to, part.data(), part.size());
    to += part.size();
  });
  return value;
}

void take_data(BlockRequest& request, std::span<const Buffer> buffers, std::uint64_t from, std::uint64_t length) {
  request.length = length;
  for_each_part(buffers, from, length,
                [&](Buffer part) { request.data.push_back({.iov_base = part.data(), .iov_len = part.size()}); });
}

bool fits(std::uint64_t sector, std::uint64_t sectors, std::uint64_t capacity) {
  return sector <= capacity && sectors <= capacity - sector;
}

using Refusal = std::optional<BlockStatus>;

/// The range of In and Out.
Refusal check_transfer(BlockRequest& request, std::uint64_t sector, const BlockRequest::Limits& limits) {
  if (request.length % kSector != 0 || !fits(sector, request.length / kSector, limits.sectors)) {
    return BlockStatus::IoError;
  }
  request.offset = sector * kSector;
  return std::nullopt;
}

Refusal take_ranges(BlockRequest& request, std::span<const Buffer> readable, std::uint64_t bytes,
                    std::uint32_t max_sectors, std::uint32_t flags, const BlockRequest::Limits& limits) {
  if (max_sectors == 0) {
    return BlockStatus::Unsupported;  // never offered
  }
  if (limits.write == BlockRequest::Write::Refused || bytes == 0 || bytes % sizeof(BlockRange) != 0 ||
      bytes / sizeof(BlockRange) > BlockRequest::kMaxRanges) {
    return BlockStatus::IoError;
  }
  for (std::uint64_t at = 0; at < bytes; at += sizeof(BlockRange)) {
    const auto range = copy_at<BlockRange>(readable, sizeof(BlockHeader) + at);
    if ((range.flags & ~flags) != 0) {
      return BlockStatus::Unsupported;  // §5.2.6.2
    }
    if (range.sectors > max_sectors || !fits(range.sector, range.sectors, limits.sectors)) {
      return BlockStatus::IoError;
    }
    request.ranges[request.range_count++] = {
        .offset = range.sector * kSector,
        .length = range.sectors * kSector,
        .unmap = (range.flags & kRangeUnmap) != 0 ? BlockRequest::Unmap::May : BlockRequest::Unmap::No};
  }
  return std::nullopt;
}

}  // namespace

std::optional<BlockRequest> BlockRequest::parse(std::span<const Buffer> readable, std::span<const Buffer> writable,
                                                const Limits& limits, std::vector<iovec> reuse) {
  const auto writable_bytes = total(writable);
  if (writable_bytes == 0) {
    return std::nullopt;
  }
  BlockRequest request;
  request.data = std::move(reuse);
  request.data.clear();
  for_each_part(writable, writable_bytes - 1, 1, [&](Buffer part) { request.status = part.data(); });

  const auto readable_bytes = total(readable);
  if (readable_bytes < sizeof(BlockHeader)) {
    request.refused = BlockStatus::IoError;
    return request;
  }
  const auto header = copy_at<BlockHeader>(readable, 0);
  const auto payload = readable_bytes - sizeof(BlockHeader);
  request.type = BlockType{header.type};
  switch (request.type) {
    case BlockType::In:
      take_data(request, writable, 0, writable_bytes - 1);
      request.refused = check_transfer(request, header.sector, limits);
      return request;
    case BlockType::Out:
      take_data(request, readable, sizeof(BlockHeader), payload);
      request.refused =
          limits.write == Write::Refused ? BlockStatus::IoError : check_transfer(request, header.sector, limits);
      return request;
    case BlockType::Flush:
      return request;
    case BlockType::GetId:
      take_data(request, writable, 0, writable_bytes - 1);
      return request;
    case BlockType::Discard:
      request.refused = take_ranges(request, readable, payload, limits.discard_sectors, 0, limits);
      return request;
    case BlockType::WriteZeroes:
      request.refused = take_ranges(request, readable, payload, limits.zeroes_sectors, kRangeUnmap, limits);
      return request;
  }
  request.refused = BlockStatus::Unsupported;
  return request;
}

}  // namespace martlet::virtio
