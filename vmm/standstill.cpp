#include "vmm/standstill.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

namespace martlet {

Standstill::Standstill(EventLoop& loop, const std::vector<Brake*>& brakes, Hooks hooks)
    : loop_{loop}, hooks_{std::move(hooks)} {
  for (auto* const brake : brakes) {
    cpus_.push_back({.brake = brake});
    loop_.watch(brake->fd(), EPOLLIN, [this, brake](std::uint32_t) {
      drain_counter(brake->fd());
      settle();
    });
  }
}

Standstill::~Standstill() {
  on_exit(nullptr);
  for (const auto& cpu : cpus_) {
    loop_.unwatch(cpu.brake->fd());
    cpu.brake->release();
  }
}

void Standstill::look(std::function<void()> look) {
  lookers_.push_back(std::move(look));
  stop_all();
}

void Standstill::hold(std::function<void()> reached) {
  for (auto& cpu : cpus_) {
    cpu.held = true;
  }
  holders_.push_back(std::move(reached));
  stop_all();
}

void Standstill::stop_all() {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    cpus_[i].brake->pull();
    hooks_.kick(i);
  }
  settle();  // they may have been at rest before
}

void Standstill::release(std::size_t cpu) {
  cpus_[cpu].held = false;
  if (lookers_.empty()) {
    let_go(cpu);
  }  // else it goes when they have looked
}

void Standstill::let_go(std::size_t cpu) {
  hooks_.releasing(cpu);
  cpus_[cpu].brake->release();
}

bool Standstill::holds_any() const { return std::ranges::any_of(cpus_, &Cpu::held); }

bool Standstill::holds_all() const { return std::ranges::all_of(cpus_, &Cpu::held) && all_rest(); }

bool Standstill::all_rest() const {
  return std::ranges::all_of(cpus_, [](const Cpu& cpu) { return cpu.brake->at_rest(); });
}

void Standstill::on_exit(std::function<void(std::size_t, const Exit&)> handler) {
  exited_ = std::move(handler);
  for (const auto& cpu : cpus_) {
    cpu.brake->set_debugged(exited_ != nullptr);
  }
}

/// Whoever asks for something meanwhile is served in turn, not from within.
void Standstill::settle() {
  if (std::exchange(settling_, true)) {
    return;
  }
  while (serve()) {
  }
  settling_ = false;
}

/// Those who look or those who hold, if there are any and all vCPUs rest.
bool Standstill::serve() {
  const bool all = all_rest();  // first: then there is no exit but those that are taken now
  take_exits();
  if (!all || (lookers_.empty() && holders_.empty())) {
    return false;
  }
  if (lookers_.empty()) {
    for (const auto& reached : std::exchange(holders_, {})) {
      reached();
    }
    return true;
  }
  for (const auto& look : std::exchange(lookers_, {})) {
    look();
  }
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    if (!cpus_[i].held && lookers_.empty()) {
      let_go(i);
    }
  }
  return true;
}

void Standstill::take_exits() {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    if (const auto exit = cpus_[i].brake->take_exit(); exit && exited_) {
      exited_(i, *exit);
    }
  }
}

}  // namespace martlet
