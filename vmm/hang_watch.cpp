#include "vmm/hang_watch.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace martlet {
namespace {

constexpr std::size_t kSamples = 5;
constexpr std::chrono::milliseconds kApart{40};        // longer than any interrupt handler
constexpr std::chrono::milliseconds kFirstLook{1000};  // after this silence, for vCPUs that nothing can wake

}  // namespace

HangWatch::HangWatch(Machine& machine)
    : machine_{machine},
      silence_{machine.loop(), [this] { silent(); }},
      sampling_{machine.loop(), [this] { take_sample(); }} {}

void HangWatch::watch(std::chrono::milliseconds silence, Told hangs) {
  limit_ = silence;
  hangs_ = std::move(hangs);
  silence_.start_once(std::min(limit_, kFirstLook));
}

/// First early in a silence, for what nothing can wake; then each time that it has lasted for long.
HangWatch::Clock::time_point HangWatch::due() const {
  if (looked_ < heard_) {
    return heard_ + std::min(limit_, kFirstLook);
  }
  return (looked_ - heard_ < limit_ ? heard_ : looked_) + limit_;
}

/// Output does not set the timer anew: it is cheaper to find out here that there was some.
void HangWatch::silent() {
  const auto now = Clock::now();
  if (now < due()) {
    silence_.start_once(due() - now);
    return;
  }
  looked_ = now;
  look([this](const MachineActivity& activity) {
    if (activity.hangs && (activity.dead || looked_ - heard_ >= limit_)) {
      hangs_(activity);
    } else {
      silence_.start_once(std::max<std::chrono::nanoseconds>(due() - Clock::now(), kApart));
    }
  });
}

void HangWatch::look(Told told) {
  told_.push_back(std::move(told));
  if (told_.size() == 1) {
    samples_.clear();
    take_sample();
  }
}

void HangWatch::take_sample() {
  if (machine_.held()) {
    for (const auto& told : std::exchange(told_, {})) {
      told({.text = "held by a debugger"});
    }
    return;
  }
  machine_.look([this] {
    samples_.push_back(machine_.sample_cpus());
    if (samples_.size() < kSamples) {
      sampling_.start_once(kApart);
      return;
    }
    const auto activity = activity_of(samples_, name_address);
    for (const auto& told : std::exchange(told_, {})) {
      told(activity);
    }
  });
}

}  // namespace martlet
