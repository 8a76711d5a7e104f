#include "vmm/kvm/vcpu_thread.h"

#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <system_error>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

int kick_signal() noexcept { return SIGRTMIN; }

// Its only work is to exist: a handled signal makes KVM_RUN return with EINTR.
void on_kick(int) {}

void install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = on_kick;
  check(::sigaction(kick_signal(), &action, nullptr), "sigaction");
}

/// Signals are the main thread's business (signalfd), save for the kick.
void block_all_but_kick() {
  sigset_t blocked;
  ::sigfillset(&blocked);
  ::sigdelset(&blocked, kick_signal());
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    ::sigdelset(&blocked, fault);
  }
  ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

std::thread start(const Vcpu& vcpu, std::function<void()> body) {
  install_kick_handler();
  try {
    return std::thread{[index = vcpu.index(), body = std::move(body)] {
      block_all_but_kick();
      ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", index).c_str());
      body();
    }};
  } catch (const std::system_error& error) {
    throw HostError{fmt::format("cannot start the thread of vCPU {}: {}; see ulimit -u", vcpu.index(), error.what())};
  }
}

}  // namespace

VcpuThread::VcpuThread(Vcpu& vcpu, std::function<void()> body) : vcpu_{vcpu}, thread_{start(vcpu, std::move(body))} {}

VcpuThread::~VcpuThread() { thread_.join(); }

void VcpuThread::kick() noexcept {
  vcpu_.set_immediate_exit();
  ::pthread_kill(thread_.native_handle(), kick_signal());
}

}  // namespace martlet
