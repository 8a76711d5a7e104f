#include "vmm/kvm/brake.h"

#include <utility>

namespace martlet {

void Brake::pull() noexcept {
  const std::lock_guard lock{mutex_};
  pulled_ = true;
  if (waiting_) {  // released a moment ago, and not gone yet
    signal_eventfd(rested_.get());
  }
}

void Brake::release() noexcept {
  {
    const std::lock_guard lock{mutex_};
    pulled_ = false;
  }
  released_.notify_one();
}

bool Brake::at_rest() const noexcept {
  const std::lock_guard lock{mutex_};
  return waiting_ && pulled_;
}

std::optional<Exit> Brake::take_exit() noexcept {
  const std::lock_guard lock{mutex_};
  return std::exchange(exit_, std::nullopt);
}

void Brake::rest(const StopLine& stop) noexcept {
  std::unique_lock lock{mutex_};
  if (!pulled_ || stop.requested()) {
    return;
  }
  waiting_ = true;
  signal_eventfd(rested_.get());
  released_.wait(lock, [&] { return !pulled_ || stop.requested(); });
  waiting_ = false;
}

bool Brake::pull_at(const Exit& exit) noexcept {
  const std::lock_guard lock{mutex_};
  if (!debugged_) {
    return false;
  }
  exit_ = exit;
  pulled_ = true;
  return true;
}

void Brake::set_debugged(bool debugged) noexcept {
  const std::lock_guard lock{mutex_};
  debugged_ = debugged;
}

}  // namespace martlet
