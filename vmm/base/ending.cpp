#include "vmm/base/ending.h"

#include <utility>

namespace martlet {

void StopLine::request(Ending ending) noexcept {
  {
    const std::lock_guard lock{mutex_};
    if (ending_) {
      return;
    }
    ending_ = std::move(ending);
    requested_.store(true, std::memory_order_release);
  }
  signal_eventfd(event_.get());
}

std::optional<Ending> StopLine::ending() const {
  const std::lock_guard lock{mutex_};
  return ending_;
}

}  // namespace martlet
