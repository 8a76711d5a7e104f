#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "net/rtnetlink.h"

namespace martlet::test {

/// Bytes a second that the interface has sent, as it counts them: for ten seconds after the burst is spent.
inline double measured(const std::string& interface, const std::function<void()>& busy) {
  using Clock = std::chrono::steady_clock;
  Rtnetlink netlink;
  const auto work = [&](std::chrono::milliseconds time) {
    for (const auto end = Clock::now() + time; Clock::now() < end;) {
      busy();
      std::this_thread::sleep_for(std::chrono::milliseconds{1});  // others have work, too
    }
  };
  work(std::chrono::milliseconds{500});
  const auto start = Clock::now();
  const auto before = netlink.find(interface)->counters.tx_bytes;
  work(std::chrono::seconds{10});
  const std::chrono::duration<double> passed = Clock::now() - start;
  return static_cast<double>(netlink.find(interface)->counters.tx_bytes - before) / passed.count();
}

}  // namespace martlet::test
