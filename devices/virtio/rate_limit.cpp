#include "devices/virtio/rate_limit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr double kNanoseconds = 1e9;
constexpr std::uint64_t kBurstsPerSecond = 10;

}  // namespace

TokenBucket::TokenBucket(std::uint64_t rate, std::uint64_t burst, Clock::time_point now)
    : rate_{static_cast<double>(rate)},
      burst_{static_cast<double>(burst != 0 ? burst : std::max<std::uint64_t>(rate / kBurstsPerSecond, 1))},
      tokens_{burst_},
      filled_{now} {}

std::chrono::nanoseconds TokenBucket::delay(Clock::time_point now) noexcept {
  using std::chrono::nanoseconds;
  if (rate_ == 0) {
    return nanoseconds{0};
  }
  const auto passed = std::max(std::chrono::duration_cast<nanoseconds>(now - filled_), nanoseconds{0});
  filled_ = std::max(now, filled_);
  tokens_ = std::min(burst_, tokens_ + rate_ * static_cast<double>(passed.count()) / kNanoseconds);
  if (tokens_ >= 1) {
    return nanoseconds{0};
  }
  // Rounded up, so that nobody comes back just too early; a day at most, so that it fits.
  const double wait = std::min(std::ceil((1 - tokens_) / rate_ * kNanoseconds) + 1, 86400 * kNanoseconds);
  return nanoseconds{static_cast<nanoseconds::rep>(wait)};
}

RateLimits RateLimits::parse(Options& options) {
  constexpr std::uint64_t kMax = 1ULL << 50U;  // exact in a double
  RateLimits limits;
  limits.bytes = options.take_size("rate").value_or(0);
  limits.burst = options.take_size("burst").value_or(0);
  limits.operations = options.take_number("iops", {.min = 1, .max = kMax}).value_or(0);
  limits.operations_burst = options.take_number("iops_burst", {.min = 1, .max = kMax}).value_or(0);
  if (limits.bytes > kMax || limits.burst > kMax) {
    throw HostError{"rate and burst: at most 1024T a second; leave rate out for no limit"};
  }
  if ((limits.burst != 0 && limits.bytes == 0) || (limits.operations_burst != 0 && limits.operations == 0)) {
    throw HostError{"burst needs rate=BYTES_PER_SECOND, and iops_burst needs iops=N"};
  }
  return limits;
}

Throttle::Throttle(EventLoop& loop, const RateLimits& limits, std::function<void()> resume)
    : bytes_{limits.bytes, limits.burst, TokenBucket::Clock::now()},
      operations_{limits.operations, limits.operations_burst, TokenBucket::Clock::now()} {
  if (limits.any()) {
    timer_.emplace(loop, std::move(resume));
  }
}

bool Throttle::ready() noexcept {
  if (!timer_) {
    return true;
  }
  const auto now = TokenBucket::Clock::now();
  const auto delay = std::max(bytes_.delay(now), operations_.delay(now));
  if (delay > delay.zero()) {
    timer_->start_once(delay);
    return false;
  }
  return true;
}

void Throttle::count(std::uint64_t bytes) noexcept {
  bytes_.take(bytes);
  operations_.take(1);
}

bool Throttle::admit(std::uint64_t bytes) noexcept {
  const bool goes = ready();
  if (goes) {
    count(bytes);
  }
  return goes;
}

}  // namespace martlet::virtio
