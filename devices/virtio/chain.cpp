#include "devices/virtio/chain.h"

#include <algorithm>
#include <cstring>

namespace martlet::virtio {

std::span<std::byte> ChainCursor::take_span(std::uint64_t bytes) noexcept {
  bytes = std::min(bytes, remaining_);
  if (bytes == 0) {
    return {};
  }
  const auto& buffer = buffers_.front();  // never empty: queues leave those out
  const auto count = std::min<std::uint64_t>(bytes, buffer.size() - offset_);
  const auto taken = buffer.subspan(offset_, count);
  offset_ += count;
  if (offset_ == buffer.size()) {
    buffers_ = buffers_.subspan(1);
    offset_ = 0;
  }
  remaining_ -= count;
  passed_ += count;
  return taken;
}

std::span<iovec> ChainCursor::take(std::span<iovec> into, std::uint64_t bytes) noexcept {
  std::size_t count = 0;
  while (count < into.size()) {
    const auto taken = take_span(bytes);
    if (taken.empty()) {
      break;
    }
    into[count++] = {.iov_base = taken.data(), .iov_len = taken.size()};
    bytes -= taken.size();
  }
  return into.first(count);
}

std::uint64_t ChainCursor::skip(std::uint64_t bytes) noexcept {
  const auto before = passed_;
  while (!take_span(bytes - (passed_ - before)).empty()) {
  }
  return passed_ - before;
}

void ChainCursor::truncate(std::uint64_t bytes) noexcept { remaining_ = std::min(remaining_, bytes); }

std::size_t ChainReader::copy(std::span<std::byte> into) noexcept {
  std::size_t done = 0;
  for (auto from = take_span(into.size()); !from.empty(); from = take_span(into.size() - done)) {
    std::memcpy(into.data() + done, from.data(), from.size());
    done += from.size();
  }
  return done;
}

std::size_t ChainWriter::copy(std::span<const std::byte> bytes) noexcept {
  std::size_t done = 0;
  for (auto to = take_span(bytes.size()); !to.empty(); to = take_span(bytes.size() - done)) {
    std::memcpy(to.data(), bytes.data() + done, to.size());
    done += to.size();
  }
  return done;
}

std::uint64_t ChainWriter::zero(std::uint64_t bytes) noexcept {
  std::uint64_t done = 0;
  for (auto to = take_span(bytes); !to.empty(); to = take_span(bytes - done)) {
    std::ranges::fill(to, std::byte{0});
    done += to.size();
  }
  return done;
}

std::optional<ChainWriter> ChainWriter::take_last(std::uint64_t bytes) noexcept {
  if (bytes > remaining()) {
    return std::nullopt;
  }
  ChainWriter last = *this;
  last.skip(remaining() - bytes);
  truncate(remaining() - bytes);
  return last;
}

}  // namespace martlet::virtio
