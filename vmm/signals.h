#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>

#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet {

/// Receives signals as events of a loop instead of interruptions. Those that the parent had set to be
/// ignored (nohup) stay ignored. Make it before the first thread starts: threads inherit the mask.
class SignalWatch {
 public:
  SignalWatch(std::initializer_list<int> signals);
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  ~SignalWatch();

  /// Calls `handler` with each signal that arrives, on the loop's thread.
  void deliver(EventLoop& loop, std::function<void(int)> handler);

 private:
  sigset_t before_{};
  Fd fd_;
};

}  // namespace martlet
