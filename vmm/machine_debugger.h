#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmm/debug/gdb/target.h"
#include "vmm/kvm/exit.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/standstill.h"

namespace martlet {

/// Whether this host's KVM can hold a vCPU's interrupts back while it steps: Linux 5.15 or later.
[[nodiscard]] bool blocks_interrupts(const KvmSystem& kvm);

/// For KVM_SET_GUEST_DEBUG. Where interrupts cannot be held back, a step may end in a handler.
[[nodiscard]] kvm_guest_debug to_kvm(const GuestDebug& debug, bool can_block_interrupts);

/// The machine as a debugger sees it.
class MachineDebugger final : public DebugTarget {
 public:
  /// All outlive it.
  struct Wiring {
    Standstill& standstill;
    std::vector<Vcpu*> cpus;
    const GuestMemory& memory;
    const Buses& buses;
    StopLine& stop;
    EventLoop& loop;
    bool int3_exits;
    bool blocks_interrupts;
    std::function<void(std::size_t cpu)> send_nmi;
  };
  explicit MachineDebugger(const Wiring& wiring);
  MachineDebugger(const MachineDebugger&) = delete;
  MachineDebugger& operator=(const MachineDebugger&) = delete;
  ~MachineDebugger() override;

  /// The VM has ended with this exit code.
  void machine_ended(int exit_code);

  void listen(DebugListener* listener) override;
  [[nodiscard]] std::size_t cpu_count() const noexcept override { return wiring_.cpus.size(); }
  [[nodiscard]] const GuestMemory& memory() const noexcept override { return wiring_.memory; }
  [[nodiscard]] bool int3_exits() const noexcept override { return wiring_.int3_exits; }
  [[nodiscard]] bool at_rest() const noexcept override { return wiring_.standstill.holds_all(); }
  [[nodiscard]] std::optional<CpuState> read_cpu(std::size_t cpu) override;
  [[nodiscard]] bool write_cpu(std::size_t cpu, const CpuState& state, CpuParts parts) override;
  void resume(std::span<const CpuOrder> orders) override;
  void interrupt() override;
  void reset() override;
  void quit() override;
  [[nodiscard]] std::optional<std::string> monitor(std::string_view command) override;
  [[nodiscard]] std::string monitor_help() const override;

 private:
  [[nodiscard]] std::optional<std::string> send_nmi(std::string_view rest);
  void exited(std::size_t cpu, const Exit& exit);
  void gather();

  Wiring wiring_;
  DebugListener* listener_ = nullptr;
  std::vector<GuestDebug> debug_;  // what KVM was told last, of each vCPU
  std::vector<StopEvent> events_;
  std::optional<Ending> fault_;  // the machine can only end now
  bool gathering_ = false;
};

}  // namespace martlet
