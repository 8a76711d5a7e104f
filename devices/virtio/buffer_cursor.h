#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace martlet::virtio {

/// Takes a request's buffers piece by piece, in their order.
class BufferCursor {
 public:
  BufferCursor() = default;
  explicit BufferCursor(std::span<const iovec> buffers) : buffers_{buffers} {}

  /// Appends the next `bytes` to `to`; less where the buffers end.
  void take(std::uint64_t bytes, std::vector<iovec>& to) {
    each(bytes, [&](std::byte* at, std::size_t count) { to.push_back({.iov_base = at, .iov_len = count}); });
  }
  void fill_zeroes(std::uint64_t bytes) {
    each(bytes, [](std::byte* at, std::size_t count) { std::memset(at, 0, count); });
  }
  void copy_from(std::span<const std::byte> from) {
    each(from.size(), [&](std::byte* at, std::size_t count) {
      std::memcpy(at, from.data(), count);
      from = from.subspan(count);
    });
  }

 private:
  template <class Do>
  void each(std::uint64_t bytes, Do&& act) {
    while (bytes != 0 && index_ < buffers_.size()) {
      const auto& whole = buffers_[index_];
      const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, whole.iov_len - used_));
      if (part != 0) {
        act(static_cast<std::byte*>(whole.iov_base) + used_, part);
      }
      bytes -= part;
      used_ += part;
      if (used_ == whole.iov_len) {
        ++index_;
        used_ = 0;
      }
    }
  }

  std::span<const iovec> buffers_;
  std::size_t index_ = 0;
  std::size_t used_ = 0;  // bytes of that one
};

}  // namespace martlet::virtio
