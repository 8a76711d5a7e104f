#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/base/guest_memory.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// An exception handed to a vCPU with its next entry: one that KVM reported to us and that is the guest's own.
enum class Injection : std::uint8_t {
  None,
  Breakpoint,  ///< #BP by the int3 at its pc (KVM_GUESTDBG_INJECT_BP)
  Debug,       ///< #DB, for example its own single step (KVM_GUESTDBG_INJECT_DB)
};

/// How a vCPU is watched from now on: the whole of it, for KVM_SET_GUEST_DEBUG. All off means not watched.
struct GuestDebug {
  bool single_step = false;
  bool block_interrupts = false;      ///< while it steps (KVM_GUESTDBG_BLOCKIRQ, where the host has it)
  bool int3_exits = false;            ///< KVM_GUESTDBG_USE_SW_BP
  std::array<std::uint64_t, 4> dr{};  ///< DR0 to DR3
  std::uint64_t dr7 = 0;              ///< 0: none, and the guest keeps its own debug registers
  Injection inject = Injection::None;

  friend bool operator==(const GuestDebug&, const GuestDebug&) = default;
};

/// What is asked of one vCPU by DebugTarget::resume().
struct CpuOrder {
  bool run = true;  ///< else it stays at rest
  GuestDebug debug{};
};

/// Why the machine stopped. One for each vCPU that had a reason of its own, in any order.
struct StopEvent {
  enum class Kind : std::uint8_t {
    Interrupted,  ///< interrupt() asked for it, or the machine was stopped otherwise; `cpu` means nothing
    Debug,        ///< the vCPU's debug exit, in `exit`
    Fault,        ///< triple fault or KVM internal error: can be looked at, resume() ends the VM
  };
  Kind kind = Kind::Interrupted;
  std::size_t cpu = 0;
  kvm_debug_exit_arch exit{};
  std::string detail{};  ///< Fault: one line for people
};

/// Who is told what a DebugTarget does. Called on the event loop's thread, never from within a call to the target.
class DebugListener {
 public:
  DebugListener() = default;
  DebugListener(const DebugListener&) = delete;
  DebugListener& operator=(const DebugListener&) = delete;
  virtual ~DebugListener() = default;

  /// All vCPUs are at rest, whatever stopped the first of them. Once per resume(), which may be called from here.
  virtual void stopped(std::span<const StopEvent> events) = 0;
  /// The VM ended, running or not; the target is of no more use.
  virtual void ended(int exit_code) = 0;
};

/// A machine as a debugger sees it: vCPUs that all run or all rest, guest memory, and a few orders. On the event
/// loop's thread only; nothing here waits for a vCPU. What the registers are, and writing them, is asked for at rest
/// only.
class DebugTarget {
 public:
  DebugTarget() = default;
  DebugTarget(const DebugTarget&) = delete;
  DebugTarget& operator=(const DebugTarget&) = delete;
  virtual ~DebugTarget() = default;

  /// Who listens from now on; null: nobody.
  virtual void listen(DebugListener* listener) = 0;

  [[nodiscard]] virtual std::size_t cpu_count() const noexcept = 0;
  [[nodiscard]] virtual const GuestMemory& memory() const noexcept = 0;
  /// Whether int3 in a guest ends in a debug exit on this host. Where it does not (some emulated CPUs), software
  /// breakpoints are made of debug registers.
  [[nodiscard]] virtual bool int3_exits() const noexcept = 0;

  /// All vCPUs are at rest.
  [[nodiscard]] virtual bool at_rest() const noexcept = 0;
  /// Nothing when KVM fails.
  [[nodiscard]] virtual std::optional<CpuState> read_cpu(std::size_t cpu) = 0;
  [[nodiscard]] virtual bool write_cpu(std::size_t cpu, const CpuState& state, CpuParts parts) = 0;

  /// Lets vCPUs go on, each as its order says (one for each); the first that has a reason stops them all again.
  /// At least one runs. Orders hold until the next resume(); to leave the machine alone, give orders without
  /// GuestDebug.
  virtual void resume(std::span<const CpuOrder> orders) = 0;
  /// Asks for all vCPUs to stop. DebugListener::stopped() follows, soon, even when they stopped for another
  /// reason meanwhile; nothing happens when they rest already.
  virtual void interrupt() = 0;

  /// Resets the machine as the guest's own reset would, which may end the VM (ended() follows).
  virtual void reset() = 0;
  /// Ends the VM.
  virtual void quit() = 0;
  /// Answers a command that the stub does not know ("info mtree"), for people; nothing when nobody knows it.
  [[nodiscard]] virtual std::optional<std::string> monitor(std::string_view command) = 0;
  /// One line for each command of monitor(), for `help`; newline at the end.
  [[nodiscard]] virtual std::string monitor_help() const = 0;
};

}  // namespace martlet
