#include "vmm/debug/vcpu_activity.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstddef>

namespace martlet {
namespace {

constexpr std::uint64_t kInterruptFlag = 1U << 9U;  // RFLAGS.IF
constexpr std::uint64_t kLoop = 4096;               // bytes of code: less is a loop that waits, more is work

enum class Activity { NotStarted, Dead, Idle, SpinsDeaf, Spins, Works };

Activity activity_of_one(std::span<const std::vector<VcpuSample>> samples, std::size_t cpu) {
  const auto all = [&](auto&& predicate) {
    return std::ranges::all_of(samples, [&](const auto& moment) { return predicate(moment[cpu]); });
  };
  const auto any = [&](auto&& predicate) {
    return std::ranges::any_of(samples, [&](const auto& moment) { return predicate(moment[cpu]); });
  };
  if (all([](const VcpuSample& sample) { return !sample.started; })) {
    return Activity::NotStarted;
  }
  if (all([](const VcpuSample& sample) { return sample.halted && !sample.interrupts_on; })) {
    return Activity::Dead;
  }
  if (any([](const VcpuSample& sample) { return sample.halted; })) {
    return Activity::Idle;
  }
  if (samples.front()[cpu].exits != samples.back()[cpu].exits) {
    return Activity::Works;
  }
  if (all([](const VcpuSample& sample) { return !sample.interrupts_on; })) {
    return Activity::SpinsDeaf;
  }
  const auto [lowest, highest] = std::ranges::minmax(samples, {}, [&](const auto& moment) { return moment[cpu].rip; });
  return highest[cpu].rip - lowest[cpu].rip < kLoop ? Activity::Spins : Activity::Works;
}

}  // namespace

VcpuSample sample_vcpu(int fd) noexcept {
  kvm_regs regs{};
  kvm_mp_state state{};
  if (::ioctl(fd, KVM_GET_REGS, &regs) < 0 || ::ioctl(fd, KVM_GET_MP_STATE, &state) < 0) {
    return {.interrupts_on = true};  // suspects nobody
  }
  return {.rip = regs.rip,
          .started = state.mp_state == KVM_MP_STATE_RUNNABLE || state.mp_state == KVM_MP_STATE_HALTED,
          .halted = state.mp_state == KVM_MP_STATE_HALTED,
          .interrupts_on = (regs.rflags & kInterruptFlag) != 0};
}

MachineActivity activity_of(std::span<const std::vector<VcpuSample>> samples,
                            const std::function<std::string(std::uint64_t)>& name) {
  MachineActivity result;
  if (samples.empty() || samples.front().empty()) {
    return result;
  }
  const auto& last = samples.back();
  std::size_t dead = 0;
  std::size_t idle = 0;
  std::size_t started = 0;
  std::string working;
  for (std::size_t cpu = 0; cpu < last.size(); ++cpu) {
    const auto activity = activity_of_one(samples, cpu);
    const auto at = name(last[cpu].rip);
    started += activity == Activity::NotStarted ? 0 : 1;
    dead += activity == Activity::Dead ? 1 : 0;
    idle += activity == Activity::Idle ? 1 : 0;
    if (activity == Activity::SpinsDeaf && !result.hangs) {
      result.hangs = true;
      result.vcpu = static_cast<int>(cpu);
      result.text = "spins with interrupts off at " + at;
    } else if (activity == Activity::Spins || activity == Activity::Works) {
      working += fmt::format("{}vCPU {} {} at {}", working.empty() ? "" : ", ", cpu,
                             activity == Activity::Spins ? "spins with interrupts on" : "runs", at);
    }
  }
  if (result.hangs) {
    return result;
  }
  if (dead == started) {
    result.hangs = true;
    result.dead = true;
    result.text = fmt::format("{} halted with interrupts off at {}", started == 1 ? "the vCPU" : "all vCPUs",
                              name(last.front().rip));
  } else if (!working.empty()) {
    result.text = working;
  } else {
    result.text = dead == 0 ? "all vCPUs idle, waiting for interrupts"
                            : fmt::format("{} vCPUs idle, {} halted with interrupts off", idle, dead);
  }
  return result;
}

std::string name_address(std::uint64_t addr) { return fmt::format("{:#x}", addr); }

}  // namespace martlet
