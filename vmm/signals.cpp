#include "vmm/signals.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

#include "vmm/base/error.h"

namespace martlet {

SignalWatch::SignalWatch(std::initializer_list<int> signals) {
  sigset_t watched;
  ::sigemptyset(&watched);
  for (const int signal : signals) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
      ::sigaddset(&watched, signal);
    }
  }
  ::pthread_sigmask(SIG_BLOCK, &watched, &before_);
  fd_ = Fd{check(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd")};
}

SignalWatch::~SignalWatch() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

void SignalWatch::deliver(EventLoop& loop, std::function<void(int)> handler) {
  loop.watch(fd_.get(), EPOLLIN, [fd = fd_.get(), handler = std::move(handler)](std::uint32_t) {
    signalfd_siginfo info{};
    while (::read(fd, &info, sizeof info) == sizeof info) {
      handler(static_cast<int>(info.ssi_signo));
    }
  });
}

}  // namespace martlet
