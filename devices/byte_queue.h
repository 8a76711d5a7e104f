#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace martlet {

/// Bytes that wait, first in, first out, at most as many as it is made for.
class ByteQueue {
 public:
  explicit ByteQueue(std::size_t limit) noexcept : limit_{limit} {}

  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - gone_; }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] std::size_t room() const noexcept { return limit_ - std::min(limit_, size()); }
  /// Those that wait; until the next change.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return std::span{bytes_}.subspan(gone_); }

  /// Room for `size` bytes behind the others, to be filled at once. The limit is the caller's to respect.
  [[nodiscard]] std::span<std::byte> extend(std::size_t size) {
    if (gone_ > bytes_.size() / 2) {  // not each time: what waits would be moved once a byte
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(gone_));
      gone_ = 0;
    }
    bytes_.resize(bytes_.size() + size);
    return std::span{bytes_}.last(size);
  }
  void push(std::span<const std::byte> bytes) { std::ranges::copy(bytes, extend(bytes.size()).begin()); }
  void pop(std::size_t size) noexcept {
    gone_ += size;
    if (empty()) {
      clear();
    }
  }
  void clear() noexcept {
    bytes_.clear();
    gone_ = 0;
  }

 private:
  std::size_t limit_;
  std::vector<std::byte> bytes_;
  std::size_t gone_ = 0;  // of bytes_
};

}  // namespace martlet
