#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "vmm/base/bus.h"
#include "vmm/base/ending.h"
#include "vmm/base/guest_addr.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

enum class Direction : std::uint8_t { Read, Write };

/// IN, OUT, INS, OUTS: `data` holds a whole number of items of `size` bytes, all for the same port.
struct PortIo {
  Direction direction;
  std::uint8_t size;  ///< 1, 2 or 4
  std::uint16_t port;
  std::span<std::byte> data;
};
/// An access to memory that is not there: 1 to 8 bytes.
struct Mmio {
  Direction direction;
  GuestAddr addr;
  std::span<std::byte> data;
};
/// A signal or a kick: nothing the guest did.
struct Interrupted {};
/// HLT with no in-kernel interrupt controller to wake the vCPU.
struct Halted {};
/// The CPU shut down: a triple fault.
struct Shutdown {};
/// The guest asked by hypercall or PSCI: KVM_SYSTEM_EVENT_*.
struct SystemEvent {
  std::uint32_t type;
};
/// A breakpoint, watchpoint or single step.
struct Debug {
  kvm_debug_exit_arch arch;
};
/// KVM could not go on: internal error, failed entry, or an exit nobody knows.
struct KvmFault {
  std::uint32_t reason;  ///< KVM_EXIT_*
  std::uint64_t code;    ///< suberror, or hardware failure reason; else 0
};
/// KVM_RUN itself failed.
struct RunFailed {
  int error;  ///< errno
};
using Exit = std::variant<PortIo, Mmio, Interrupted, Halted, Shutdown, SystemEvent, Debug, KvmFault, RunFailed>;

/// Makes sense of what KVM_RUN returned. The only reader of struct kvm_run.
[[nodiscard]] Exit decode(kvm_run& run) noexcept;

/// A guest's two address spaces.
struct Buses {
  Bus ports;
  Bus mmio;
};

/// One vCPU's counts: plain integers that only its own thread writes.
struct ExitCounts {
  explicit ExitCounts(const Buses& buses)
      : ports(buses.ports.entries().size() + 1), mmio(buses.mmio.entries().size() + 1) {}

  std::uint64_t exits = 0;
  std::uint64_t interrupted = 0;
  std::vector<std::uint64_t> ports;  ///< per entry of the bus; the last counts accesses nobody answers
  std::vector<std::uint64_t> mmio;
};

/// One vCPU's way through the buses.
class Dispatcher {
 public:
  explicit Dispatcher(const Buses& buses) : buses_{&buses}, counts_{buses} {}

  /// Serves an access: true. Any other exit, a kick too: false, and it is the caller's.
  /// A read that nobody answers gives all ones, as an empty bus does.
  [[nodiscard]] bool dispatch(const Exit& exit) noexcept;

  [[nodiscard]] ExitCounts& counts() noexcept { return counts_; }

 private:
  const Buses* buses_;
  ExitCounts counts_;
  Bus::LastHit last_port_;
  Bus::LastHit last_mmio_;
};

/// How the VM ends by an exit that dispatch() refused.
[[nodiscard]] Ending ending_of(const Exit& exit, int vcpu);

}  // namespace martlet
