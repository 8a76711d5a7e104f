#include "net/network_turn.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::chrono::seconds kPatience{60};  // a switch with a thousand routes to move takes a while

}  // namespace

NetworkTurn::NetworkTurn() : namespace_{open_file("/proc/self/ns/net", O_RDONLY)} {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (::flock(namespace_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      fail_errno(errno, "/proc/self/ns/net: cannot lock");
    }
    if (std::chrono::steady_clock::now() > end) {
      throw HostError{"another martlet net create or delete is at work here and does not end"};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  sigset_t held;
  ::sigemptyset(&held);
  for (const int number : {SIGHUP, SIGINT, SIGTERM}) {
    ::sigaddset(&held, number);
  }
  ::pthread_sigmask(SIG_BLOCK, &held, &before_);
}

NetworkTurn::~NetworkTurn() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace martlet
