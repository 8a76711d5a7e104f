#pragma once

#include <chrono>
#include <ctime>
#include <string_view>
#include <vector>

namespace martlet {

/// Where a start's CPU time goes, phase by phase since exec.
class StartClock {
 public:
  struct Phase {
    std::string_view name;
    std::chrono::nanoseconds cpu;
  };

  /// The phase called `name` (a literal) ends here. The first one began with the process.
  void mark(std::string_view name) {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    const auto cpu = std::chrono::seconds{time.tv_sec} + std::chrono::nanoseconds{time.tv_nsec};
    phases_.push_back({.name = name, .cpu = cpu - last_});
    last_ = cpu;
  }

  [[nodiscard]] const std::vector<Phase>& phases() const noexcept { return phases_; }

 private:
  std::vector<Phase> phases_;
  std::chrono::nanoseconds last_{0};
};

}  // namespace martlet
