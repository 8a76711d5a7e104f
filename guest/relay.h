#pragma once

#include <cstddef>

namespace guest {

struct PollEntry {  // struct pollfd
  int fd = -1;
  short events = 0;
  short happened = 0;
};

/// Carries bytes from one descriptor to another, neither of which waits, until the one ends or the other does.
class Relay {
 public:
  Relay(long from, long to) noexcept : from_{static_cast<int>(from)}, to_{static_cast<int>(to)} {}

  /// What to wait for before the next step().
  void prepare(PollEntry& from, PollEntry& to) const noexcept;
  /// As much as goes now, after poll(2) said what happened.
  void step(const PollEntry& from, const PollEntry& to) noexcept;

  [[nodiscard]] bool ended() const noexcept { return from_ < 0; }
  /// Nothing was read that is not written.
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
  /// Closes both ends.
  void end() noexcept;

 private:
  int from_;
  int to_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  char buffer_[64 << 10];
};

}  // namespace guest
