#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <string_view>
#include <vector>

namespace martlet {

/// Where a start's time goes, phase by phase since exec.
class StartClock {
 public:
  struct Phase {
    std::string_view name;
    std::chrono::nanoseconds cpu;
    std::uint64_t end;  ///< ns of CLOCK_MONOTONIC
  };

  /// The phase called `name` (a literal) ends here. The first one began with the process.
  void mark(std::string_view name) {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    const auto cpu = std::chrono::seconds{time.tv_sec} + std::chrono::nanoseconds{time.tv_nsec};
    const auto now = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    if (phases_.empty()) {
      begin_ = now - static_cast<std::uint64_t>(cpu.count());  // of exec no more is known
    }
    phases_.push_back({.name = name, .cpu = cpu - last_, .end = now});
    last_ = cpu;
  }

  /// When the process began, nearly: ns of CLOCK_MONOTONIC.
  [[nodiscard]] std::uint64_t begin() const noexcept { return begin_; }

  [[nodiscard]] const std::vector<Phase>& phases() const noexcept { return phases_; }

 private:
  std::vector<Phase> phases_;
  std::chrono::nanoseconds last_{0};
  std::uint64_t begin_ = 0;
};

}  // namespace martlet
