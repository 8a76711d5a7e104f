#include "vmm/standstill.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

namespace martlet {

Standstill::Standstill(EventLoop& loop, std::vector<Vcpu*> cpus, std::function<void(std::size_t)> kick)
    : loop_{loop}, cpus_{std::move(cpus)}, kick_{std::move(kick)} {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    loop_.watch(cpus_[i]->brake().fd(), EPOLLIN, [this, i](std::uint32_t) { came_to_rest(i); });
  }
}

Standstill::~Standstill() {
  on_exit(nullptr);
  for (auto* cpu : cpus_) {
    loop_.unwatch(cpu->brake().fd());
    cpu->brake().release();
  }
}

void Standstill::ask(std::function<void()> reached) {
  waiting_.push_back(std::move(reached));
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    cpus_[i]->brake().pull();
    kick_(i);
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
  static_cast<void>(::ioctl(cpus_[cpu]->fd(), KVM_KVMCLOCK_CTRL, 0));
  cpus_[cpu]->brake().release();
}

bool Standstill::reached() const {
  return std::ranges::all_of(cpus_, [](Vcpu* cpu) { return cpu->brake().at_rest(); });
}

void Standstill::on_exit(std::function<void(std::size_t, const Exit&)> handler) {
  exited_ = std::move(handler);
  for (auto* cpu : cpus_) {
    cpu->brake().set_debugged(exited_ != nullptr);
  }
}

void Standstill::came_to_rest(std::size_t cpu) {
  auto& brake = cpus_[cpu]->brake();
  drain_counter(brake.fd());
  if (const auto exit = brake.take_exit(); exit && exited_) {
    exited_(cpu, *exit);
  }
  if (!waiting_.empty() && reached()) {
    for (const auto& reached : std::exchange(waiting_, {})) {
      reached();
    }
  }
}

}  // namespace martlet
