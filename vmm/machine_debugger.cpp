#include "vmm/machine_debugger.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "vmm/x86_64/vcpu_registers.h"

namespace martlet {
namespace {

std::string list(const GuestMemory& memory, const Buses& buses) {
  std::string text = "memory:\n";
  const auto line = [&text](std::uint64_t start, std::uint64_t size, std::string_view name) {
    text += fmt::format("  {:#018x}-{:#018x} {}\n", start, start + size - 1, name);
  };
  for (const auto& region : memory.regions()) {
    line(raw(region.range.start), region.range.size, "RAM");
  }
  for (const auto& entry : buses.mmio.entries()) {
    line(entry.start, entry.size, entry.name);
  }
  text += "ports:\n";
  for (const auto& entry : buses.ports.entries()) {
    text += fmt::format("  {:#06x}-{:#06x} {}\n", entry.start, entry.start + entry.size - 1, entry.name);
  }
  return text;
}

}  // namespace

bool blocks_interrupts(const KvmSystem& kvm) {
  return (static_cast<unsigned>(kvm.extension(KVM_CAP_SET_GUEST_DEBUG2)) & unsigned{KVM_GUESTDBG_BLOCKIRQ}) != 0;
}

kvm_guest_debug to_kvm(const GuestDebug& debug, bool can_block_interrupts) {
  kvm_guest_debug result{};
  if (debug == GuestDebug{}) {
    return result;
  }
  result.control = KVM_GUESTDBG_ENABLE;
  result.control |= debug.single_step ? KVM_GUESTDBG_SINGLESTEP : 0U;
  result.control |= debug.block_interrupts && can_block_interrupts ? KVM_GUESTDBG_BLOCKIRQ : 0U;
  result.control |= debug.int3_exits ? KVM_GUESTDBG_USE_SW_BP : 0U;
  result.control |= debug.dr7 != 0 ? KVM_GUESTDBG_USE_HW_BP : 0U;
  result.control |= debug.inject == Injection::Breakpoint ? KVM_GUESTDBG_INJECT_BP : 0U;
  result.control |= debug.inject == Injection::Debug ? KVM_GUESTDBG_INJECT_DB : 0U;
  std::ranges::copy(debug.dr, std::begin(result.arch.debugreg));
  result.arch.debugreg[7] = debug.dr7;
  return result;
}

MachineDebugger::MachineDebugger(const Wiring& wiring) : wiring_{wiring}, debug_(wiring.cpus.size()) {}

MachineDebugger::~MachineDebugger() { wiring_.standstill.on_exit(nullptr); }

void MachineDebugger::machine_ended(int exit_code) {
  if (listener_ != nullptr) {
    listener_->ended(exit_code);
  }
}

void MachineDebugger::listen(DebugListener* listener) {
  listener_ = listener;
  if (listener == nullptr) {
    wiring_.standstill.on_exit(nullptr);
  } else {
    wiring_.standstill.on_exit([this](std::size_t cpu, const Exit& exit) { exited(cpu, exit); });
  }
}

std::optional<CpuState> MachineDebugger::read_cpu(std::size_t cpu) { return read_cpu_state(*wiring_.cpus[cpu]); }

bool MachineDebugger::write_cpu(std::size_t cpu, const CpuState& state, CpuParts parts) {
  return write_cpu_state(*wiring_.cpus[cpu], state, parts);
}

void MachineDebugger::resume(std::span<const CpuOrder> orders) {
  events_.clear();
  if (fault_) {
    wiring_.stop.request(*fault_);
    return;
  }
  const auto& cpus = wiring_.cpus;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    // An injection is for one entry only, so it is never what KVM was told before.
    if (orders[i].debug != debug_[i] || orders[i].debug.inject != Injection::None) {
      auto wanted = to_kvm(orders[i].debug, wiring_.blocks_interrupts);
      if (::ioctl(cpus[i]->fd(), KVM_SET_GUEST_DEBUG, &wanted) != 0) {
        wiring_.stop.request({.kind = Ending::Kind::HostError, .detail = "KVM_SET_GUEST_DEBUG failed"});
        return;
      }
      debug_[i] = orders[i].debug;
    }
  }
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    if (orders[i].run) {
      wiring_.standstill.release(i);
    }
  }
}

void MachineDebugger::interrupt() {
  if (!at_rest()) {
    gather();
  }
}

/// Stops all, then tells why: what the vCPUs met on their way to rest belongs to the same stop.
void MachineDebugger::gather() {
  if (std::exchange(gathering_, true)) {
    return;
  }
  wiring_.standstill.hold([this] {
    gathering_ = false;
    if (events_.empty()) {
      events_.push_back({.kind = StopEvent::Kind::Interrupted});
    }
    if (listener_ != nullptr) {
      const auto events = std::exchange(events_, {});
      listener_->stopped(events);
    }
  });
}

void MachineDebugger::exited(std::size_t cpu, const Exit& exit) {
  if (const auto* debug = std::get_if<Debug>(&exit)) {
    events_.push_back({.kind = StopEvent::Kind::Debug, .cpu = cpu, .exit = debug->arch});
  } else {
    fault_ = ending_of(exit, static_cast<int>(cpu));
    events_.push_back({.kind = StopEvent::Kind::Fault, .cpu = cpu, .detail = fault_->detail});
  }
  gather();
}

void MachineDebugger::reset() { wiring_.stop.request({.kind = Ending::Kind::Reset, .detail = "by the debugger"}); }

void MachineDebugger::quit() { wiring_.stop.request({.kind = Ending::Kind::Quit, .detail = "by the debugger"}); }

std::optional<std::string> MachineDebugger::monitor(std::string_view command) {
  if (command == "info mtree") {
    return list(wiring_.memory, wiring_.buses);
  }
  if (command.starts_with("nmi")) {
    return send_nmi(command.substr(3));
  }
  return std::nullopt;
}

/// `rest`: " N" for one vCPU, "" for all.
std::optional<std::string> MachineDebugger::send_nmi(std::string_view rest) {
  if (rest.empty()) {
    for (std::size_t cpu = 0; cpu < cpu_count(); ++cpu) {
      wiring_.send_nmi(cpu);
    }
    return "";
  }
  std::size_t cpu = 0;
  const auto* const end = rest.data() + rest.size();
  const auto [stop, error] = std::from_chars(rest.data() + 1, end, cpu);
  if (rest.front() != ' ' || stop != end || error != std::errc{}) {
    return std::nullopt;
  }
  if (cpu >= cpu_count()) {
    return fmt::format("there is no vCPU {}\n", cpu);
  }
  wiring_.send_nmi(cpu);
  return "";
}

std::string MachineDebugger::monitor_help() const {
  return "info mtree      what is where in memory and ports\n"
         "nmi [N]         an NMI for vCPU N, or for each, as soon as it runs\n";
}

}  // namespace martlet
