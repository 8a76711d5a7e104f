#pragma once

#include <chrono>
#include <cstdint>
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
  struct Reading {
    Clock::time_point when;
    std::uint64_t bytes;
  };
  const auto read = [&] {
    for (;;) {
      const Reading reading{.when = Clock::now(), .bytes = netlink.find(interface)->counters.tx_bytes};
      if (Clock::now() - reading.when < std::chrono::milliseconds{10}) {
        return reading;
      }
    }
  };
  work(std::chrono::milliseconds{500});
  const auto start = read();
  work(std::chrono::seconds{10});
  const auto end = read();
  const std::chrono::duration<double> passed = end.when - start.when;
  return static_cast<double>(end.bytes - start.bytes) / passed.count();
}

}  // namespace martlet::test
