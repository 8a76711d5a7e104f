#include "vmm/debug/gdb/run_control.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace martlet::gdb {
namespace {

// gdb's numbers of signals
constexpr unsigned kSigInt = 2;
constexpr unsigned kSigTrap = 5;
constexpr unsigned kSigAbort = 6;

constexpr std::uint32_t kDebugException = 1;
constexpr std::uint32_t kBreakpointException = 3;

}  // namespace

RunControl::RunControl(DebugTarget& target, Client client)
    : target_{target},
      client_{std::move(client)},
      patches_{target.memory()},
      memory_{target.memory(), patches_},
      cpus_(target.cpu_count()) {}

RunControl::~RunControl() {
  patches_.clear();
  target_.listen(nullptr);
}

void RunControl::attach() {
  attached_ = true;
  target_.listen(this);
  if (state_ == State::Ended || leaving_) {
    return;  // it is being stopped already
  }
  state_ = target_.at_rest() ? State::Resting : State::Running;
  stopped_cpu_ = 0;
  stop_reply_ = reply(kSigTrap, "", 0);
  interrupt();
}

void RunControl::leave() {
  attached_ = false;
  memory_.set_physical(false);
  if (state_ == State::Resting) {
    let_go();
  } else if (state_ == State::Running) {
    leaving_ = true;
    target_.interrupt();
  }
}

/// Without breakpoints, whoever goes on then.
void RunControl::let_go() {
  patches_.clear();
  software_.clear();
  debug_registers_.clear();
  leaving_ = false;
  std::vector<CpuOrder> orders(cpus_.size());
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    orders[i].debug.inject = cpus_[i].inject;
    cpus_[i] = {.inject = attached_ ? cpus_[i].inject : Injection::None};
  }
  if (attached_) {
    return;  // the next client came before the last one's machine had stopped
  }
  state_ = State::Running;
  target_.listen(nullptr);  // first: nobody would let go who stops on behalf of a debugger that is not there
  target_.resume(orders);
}

void RunControl::interrupt() {
  if (state_ == State::Running) {
    interrupt_asked_ = true;
    target_.interrupt();
  }
}

const CpuState* RunControl::read(std::size_t cpu) {
  if (state_ != State::Resting || cpu >= cpus_.size()) {
    return nullptr;
  }
  auto& state = cpus_[cpu].state;
  if (!state) {
    state = target_.read_cpu(cpu);
  }
  return state ? &*state : nullptr;
}

bool RunControl::write(std::size_t cpu, const CpuState& state, CpuParts parts) {
  const auto* const before = read(cpu);
  if (before == nullptr) {
    return false;
  }
  if (before->regs.rip != state.regs.rip) {
    cpus_[cpu].inject = Injection::None;  // what the guest met, it met elsewhere
  }
  cpus_[cpu].state.reset();
  return target_.write_cpu(cpu, state, parts);
}

std::optional<std::string> RunControl::insert(const Breakpoint& breakpoint, std::size_t cpu) {
  if (breakpoint.at == StopAt::Code && target_.int3_exits()) {
    if (software_.contains(breakpoint.addr)) {
      return std::nullopt;
    }
    if (software_.size() >= kMostSoftware) {
      return fmt::format("{:#x}: {} software breakpoints are there already", breakpoint.addr, kMostSoftware);
    }
    const auto* const state = read(cpu);
    const auto page = state != nullptr ? memory_.translate(*state, breakpoint.addr) : std::nullopt;
    if (page && patches_.insert(page->addr)) {
      software_[breakpoint.addr] = page->addr;
      return std::nullopt;
    }
  }
  if (debug_registers_.insert(breakpoint)) {
    return std::nullopt;
  }
  if (breakpoint.at != StopAt::Code) {
    return fmt::format("{:#x}: the CPU's four debug registers are not enough", breakpoint.addr);
  }
  return fmt::format("{:#x}: {}, and the CPU's four debug registers, which would do, are taken", breakpoint.addr,
                     target_.int3_exits() ? "nothing is mapped there yet, so no int3 can be written"
                                          : "this host's KVM does not report int3");
}

void RunControl::remove(const Breakpoint& breakpoint) {
  debug_registers_.remove(breakpoint);
  if (breakpoint.at == StopAt::Code) {
    if (const auto found = software_.find(breakpoint.addr); found != software_.end()) {
      patches_.remove(found->second);
      software_.erase(found);
    }
  }
}

void RunControl::resume(std::vector<Action> actions) {
  actions.resize(cpus_.size());
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    cpus_[i].action = actions[i];
  }
  for (auto& cpu : cpus_) {
    if (cpu.action.kind != Action::Kind::Stay && cpu.unreported) {
      const auto unreported = std::exchange(cpu.unreported, std::nullopt);
      if (debug_registers_.has(*unreported->watch)) {
        report(*unreported);
        return;
      }
    }
  }
  const bool anybody = std::ranges::any_of(cpus_, [](const Cpu& cpu) { return cpu.action.kind != Action::Kind::Stay; });
  if (!anybody || state_ == State::Ended) {
    client_.stopped();
    return;
  }
  go();
}

/// Lets the vCPUs do what their actions say.
void RunControl::go() {
  state_ = State::Running;
  if (step_over()) {
    return;
  }
  std::vector<CpuOrder> orders;
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    const auto kind = cpus_[i].action.kind;
    const bool runs = kind != Action::Kind::Stay;
    orders.push_back({.run = runs, .debug = debug_of(i, kind == Action::Kind::Step, std::nullopt)});
    if (runs) {
      cpus_[i].inject = Injection::None;
      cpus_[i].passed.reset();
    }
  }
  forget_states();
  target_.resume(orders);
}

/// Steps one vCPU, alone, over the breakpoint that stopped it, if there is one. stopped() goes on from there.
bool RunControl::step_over() {
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    auto& cpu = cpus_[i];
    if (cpu.action.kind == Action::Kind::Stay || !cpu.passed) {
      continue;
    }
    const auto pc = *std::exchange(cpu.passed, std::nullopt);
    if (!cpu.state) {
      cpu.state = target_.read_cpu(i);
    }
    if (!cpu.state || cpu.state->sregs.cs.base + cpu.state->regs.rip != pc || !breakpoint_at(*cpu.state, pc)) {
      continue;
    }
    const auto page = memory_.translate(*cpu.state, pc);
    stepping_over_ = StepOver{.cpu = i, .pc = pc, .lifted = page ? std::optional{page->addr} : std::nullopt};
    if (page) {
      patches_.lift(page->addr);
    }
    std::vector<CpuOrder> orders(cpus_.size(), CpuOrder{.run = false});
    orders[i] = {.run = true, .debug = debug_of(i, true, pc)};
    orders[i].debug.block_interrupts = true;
    cpu.inject = Injection::None;
    forget_states();
    target_.resume(orders);
    return true;
  }
  return false;
}

GuestDebug RunControl::debug_of(std::size_t cpu, bool steps, std::optional<std::uint64_t> except) const {
  GuestDebug debug{.single_step = steps,
                   .block_interrupts = steps && block_interrupts_,
                   .int3_exits = !patches_.empty(),
                   .inject = cpus_[cpu].inject};
  debug_registers_.fill(debug, except);
  return debug;
}

bool RunControl::breakpoint_at(const CpuState& cpu, std::uint64_t pc) const {
  const auto page = memory_.translate(cpu, pc);
  return debug_registers_.has_code(pc) || (page && patches_.at(page->addr));
}

void RunControl::forget_states() {
  for (auto& cpu : cpus_) {
    cpu.state.reset();
  }
}

void RunControl::stopped(std::span<const StopEvent> events) {
  if (state_ != State::Running) {
    return;
  }
  state_ = State::Resting;
  forget_states();
  const auto stepped_over = std::exchange(stepping_over_, std::nullopt);
  if (stepped_over && stepped_over->lifted) {
    patches_.put_back(*stepped_over->lifted);
  }
  if (stepped_over) {
    cpus_[stepped_over->cpu].passed = stepped_over->pc;  // until it is known to have stepped
  }
  bool interrupted = std::exchange(interrupt_asked_, false);
  std::optional<Report> worst;
  for (const auto& event : events) {
    if (event.kind == StopEvent::Kind::Interrupted) {
      interrupted = true;
    } else if (event.cpu < cpus_.size()) {
      cpus_[event.cpu].passed.reset();
      auto found = judge(event, stepped_over && stepped_over->cpu == event.cpu);
      if (found && (!worst || found->rank > worst->rank)) {
        std::swap(found, worst);
      }
      if (found && found->watch) {  // breakpoints on code are met again by themselves
        cpus_[found->cpu].unreported = found;
      }
    }
  }
  if (leaving_) {
    let_go();
    if (!attached_) {
      return;
    }
    worst.reset();
    interrupted = true;
  }
  if (worst) {
    report(*worst);
  } else if (interrupted) {
    report({.rank = Rank::Step, .cpu = stopped_cpu_, .reply = reply(kSigInt, "", stopped_cpu_)});
  } else {
    go();
  }
}

void RunControl::ended(int exit_code) {
  const bool waited = state_ == State::Running;
  state_ = State::Ended;
  stop_reply_ = fmt::format("W{:02x}", static_cast<unsigned>(exit_code) & 0xffU);
  if (attached_ && waited) {
    client_.stopped();
  }
}

void RunControl::report(const Report& report) {
  state_ = State::Resting;
  stopped_cpu_ = report.cpu;
  if (report.pc) {
    cpus_[report.cpu].passed = report.pc;
  }
  stop_reply_ = report.reply;
  client_.stopped();
}

/// What there is to tell of an event; nothing when it is the guest's own, or no more than a step on the way.
std::optional<RunControl::Report> RunControl::judge(const StopEvent& event, bool stepped_over) {
  if (event.kind == StopEvent::Kind::Fault) {
    client_.say(fmt::format("{}\n", event.detail));
    return Report{.rank = Rank::Fault, .cpu = event.cpu, .reply = reply(kSigAbort, "", event.cpu)};
  }
  if (event.exit.exception == kBreakpointException) {
    return judge_int3(event);
  }
  return event.exit.exception == kDebugException ? judge_debug(event, stepped_over) : std::nullopt;
}

std::optional<RunControl::Report> RunControl::judge_int3(const StopEvent& event) {
  auto& cpu = cpus_[event.cpu];
  const std::uint64_t pc = event.exit.pc;
  const auto* const state = read(event.cpu);
  const auto page = state != nullptr ? memory_.translate(*state, pc) : std::nullopt;
  if (!page || !patches_.at(page->addr)) {
    // Unless a breakpoint was there and is gone, it is the guest's own.
    const bool still_there = !page || target_.memory().read<std::byte>(page->addr) == Patches::kInt3;
    cpu.inject = still_there ? Injection::Breakpoint : Injection::None;
    return std::nullopt;
  }
  if (!software_.contains(pc)) {
    cpu.passed = pc;  // another address of the same memory: the guest goes on as if nothing were there
    return std::nullopt;
  }
  return Report{.rank = Rank::Breakpoint, .cpu = event.cpu, .reply = reply(kSigTrap, "swbreak:;", event.cpu), .pc = pc};
}

std::optional<RunControl::Report> RunControl::judge_debug(const StopEvent& event, bool stepped_over) {
  auto& cpu = cpus_[event.cpu];
  if (const auto hit = debug_registers_.hit(event.exit.dr6)) {
    if (hit->of_code()) {
      const auto reason = hit->at == StopAt::Code ? "swbreak:;" : "hwbreak:;";
      return Report{
          .rank = Rank::Breakpoint, .cpu = event.cpu, .reply = reply(kSigTrap, reason, event.cpu), .pc = event.exit.pc};
    }
    const auto name = hit->at == StopAt::Write ? "watch" : hit->at == StopAt::Read ? "rwatch" : "awatch";
    return Report{.rank = Rank::Watch,
                  .cpu = event.cpu,
                  .reply = reply(kSigTrap, fmt::format("{}:{:x};", name, hit->addr), event.cpu),
                  .watch = hit};
  }
  if (cpu.action.kind == Action::Kind::Step) {
    if (event.exit.pc >= cpu.action.start && event.exit.pc < cpu.action.end) {
      return std::nullopt;
    }
    return Report{.rank = Rank::Step, .cpu = event.cpu, .reply = reply(kSigTrap, "", event.cpu)};
  }
  if (!stepped_over) {
    cpu.inject = Injection::Debug;  // the guest debugs itself
  }
  return std::nullopt;
}

std::string RunControl::reply(unsigned signal, std::string_view reason, std::size_t cpu) const {
  const bool named = name_breakpoints_ || !(reason.starts_with("swbreak") || reason.starts_with("hwbreak"));
  return fmt::format("T{:02x}{}thread:{:x};", signal, named ? reason : "", cpu + 1);
}

}  // namespace martlet::gdb
