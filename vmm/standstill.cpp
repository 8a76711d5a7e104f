#include "vmm/standstill.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace martlet {

Standstill::Standstill(EventLoop& loop, std::vector<Cpu> cpus) : loop_{loop}, cpus_{std::move(cpus)} {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    loop_.watch(cpus_[i].vcpu->brake().fd(), EPOLLIN, [this, i](std::uint32_t) { came_to_rest(i); });
  }
}

Standstill::~Standstill() {
  for (const auto& cpu : cpus_) {
    loop_.unwatch(cpu.vcpu->brake().fd());
    cpu.vcpu->brake().expect_debug_exits(false);
    cpu.vcpu->brake().release();
  }
}

void Standstill::ask(std::function<void()> reached) {
  waiting_.push_back(std::move(reached));
  for (const auto& cpu : cpus_) {
    cpu.vcpu->brake().pull();
    cpu.thread->kick();
  }
  came_to_rest(0);  // they may have been at rest before
}

void Standstill::release() {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    release_one(i);
  }
}

void Standstill::release_one(std::size_t cpu) {
  // The guest's watchdogs are told that time was taken from it. A guest without kvm-clock has nothing to tell: EINVAL.
  static_cast<void>(::ioctl(cpus_[cpu].vcpu->fd(), KVM_KVMCLOCK_CTRL, 0));
  cpus_[cpu].vcpu->brake().release();
}

bool Standstill::reached() const {
  return std::ranges::all_of(cpus_, [](const Cpu& cpu) { return cpu.vcpu->brake().at_rest(); });
}

void Standstill::on_debug_exit(std::function<void(std::size_t, const kvm_debug_exit_arch&)> handler) {
  debugged_ = std::move(handler);
  for (const auto& cpu : cpus_) {
    cpu.vcpu->brake().expect_debug_exits(debugged_ != nullptr);
  }
}

void Standstill::came_to_rest(std::size_t cpu) {
  auto& brake = cpus_[cpu].vcpu->brake();
  drain_counter(brake.fd());
  if (const auto exit = brake.take_debug_exit(); exit && debugged_) {
    debugged_(cpu, *exit);
  }
  if (!waiting_.empty() && reached()) {
    for (const auto& reached : std::exchange(waiting_, {})) {
      reached();
    }
  }
}

}  // namespace martlet
