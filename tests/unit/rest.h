#pragma once
// When an event loop on a thread of its own has nothing to do any more.

#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "tests/unit/stream_support.h"
#include "vmm/base/event_loop.h"

namespace martlet {

/// Until the loop's thread sleeps, not even waiting for a CPU, and has not woken up for `a_while`.
inline bool comes_to_rest(EventLoop& loop, std::chrono::milliseconds a_while) {
  pid_t thread = ::gettid();
  const bool runs = eventually([&, ours = thread] {  // before it is inside run(), calls are done here
    loop.call([&] { thread = ::gettid(); });
    return thread != ours;
  });
  const auto look = [thread] {
    std::ifstream status{"/proc/self/task/" + std::to_string(thread) + "/status"};
    std::pair<bool, std::string> state;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("State:")) {
        state.first = line.find('S', 6) != std::string::npos;
      } else if (line.starts_with("voluntary_ctxt_switches:")) {
        state.second = line;
      }
    }
    return state;
  };
  return runs && eventually([&] {
           const auto before = look();
           std::this_thread::sleep_for(a_while);
           return before.first && look() == before;
         });
}

}  // namespace martlet
