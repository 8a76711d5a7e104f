#pragma once

#include <csignal>

#include "vmm/base/fd.h"

namespace martlet {

/// Whose turn it is to change this network namespace's switches: one at a time. And what was begun is ended before a ^C
/// or a lost terminal counts, for half-way a remote host may have no address.
class NetworkTurn {
 public:
  /// Waits for others, for a minute at most: HostError.
  NetworkTurn();
  NetworkTurn(const NetworkTurn&) = delete;
  NetworkTurn& operator=(const NetworkTurn&) = delete;
  ~NetworkTurn();

 private:
  Fd namespace_;  // whose file is the lock: it goes with the process
  sigset_t before_{};
};

}  // namespace martlet
