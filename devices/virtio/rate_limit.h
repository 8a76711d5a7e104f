#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "vmm/base/event_loop.h"
#include "vmm/base/options.h"

namespace martlet::virtio {

/// So many tokens a second, up to a burst of them saved. Whoever comes while one is left goes, and may leave
/// a debt behind that the next one waits for: a request larger than the burst is late, not stuck.
class TokenBucket {
 public:
  using Clock = std::chrono::steady_clock;

  /// `rate` 0: no limit. `burst` 0: a tenth of a second's worth.
  TokenBucket(std::uint64_t rate, std::uint64_t burst, Clock::time_point now);

  /// How long until somebody may take again; zero: now.
  [[nodiscard]] std::chrono::nanoseconds delay(Clock::time_point now) noexcept;
  /// After delay() was zero.
  void take(std::uint64_t tokens) noexcept { tokens_ -= rate_ == 0 ? 0 : static_cast<double>(tokens); }

 private:
  double rate_;   // a second
  double burst_;  // the most that is saved
  double tokens_;
  Clock::time_point filled_;
};

/// What a device may do a second. Zeros: no limit; bursts of 0: a tenth of a second's worth.
struct RateLimits {
  std::uint64_t bytes = 0;
  std::uint64_t burst = 0;
  std::uint64_t operations = 0;
  std::uint64_t operations_burst = 0;

  [[nodiscard]] bool any() const noexcept { return bytes != 0 || operations != 0; }
  /// The keys rate, burst, iops and iops_burst.
  [[nodiscard]] static RateLimits parse(Options& options);
};

/// RateLimits on an event loop, whose thread alone may call it.
class Throttle {
 public:
  /// `resume` is called when something that was not admitted may try again.
  Throttle(EventLoop& loop, const RateLimits& limits, std::function<void()> resume);

  /// True: one operation may go, and is to be counted by count(). False: not yet; resume() will be called.
  [[nodiscard]] bool ready() noexcept;
  void count(std::uint64_t bytes) noexcept;
  /// Both at once, for who knows the bytes before.
  [[nodiscard]] bool admit(std::uint64_t bytes) noexcept;

 private:
  TokenBucket bytes_;
  TokenBucket operations_;
  std::optional<Timer> timer_;  // none without limits
};

}  // namespace martlet::virtio
