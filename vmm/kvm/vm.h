#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "vmm/base/fd.h"
#include "vmm/base/guest_addr.h"
#include "vmm/base/guest_memory.h"
#include "vmm/base/irq_line.h"
#include "vmm/base/level_line.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// One VM: memory slots, interrupt wiring, notifications. Everything throws HostError.
class Vm {
 public:
  explicit Vm(const KvmSystem& system) : fd_{system.create_vm()} {}

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Makes each region of `memory` a memory slot. `memory` outlives the VM.
  void map(const GuestMemory& memory);

  /// An edge on `line` raises global system interrupt `gsi`.
  void connect(const IrqLine& line, std::uint32_t gsi);
  void disconnect(const IrqLine& line, std::uint32_t gsi);
  /// `line` holds global system interrupt `gsi` asserted until the guest's EOI.
  void connect(const LevelLine& line, std::uint32_t gsi);

  /// A guest write that KVM itself turns into a signal on an eventfd: no exit to user space.
  struct Doorbell {
    enum class Space { Mmio, Port };
    Space space = Space::Mmio;
    std::uint64_t addr = 0;
    std::uint32_t size = 0;                ///< 1, 2, 4, 8; 0 for a write of any size
    std::optional<std::uint64_t> value{};  ///< only writes of this value
  };
  void add_doorbell(const Doorbell& doorbell, int eventfd);
  void remove_doorbell(const Doorbell& doorbell, int eventfd);

  /// Sends a message-signalled interrupt, once. One that nobody takes is lost.
  void send(const kvm_msi& message);

  /// Replaces the whole GSI routing table.
  void set_routes(std::span<const kvm_irq_routing_entry> routes);

  void enable(std::uint32_t capability, std::uint64_t argument, const char* what);

 private:
  Fd fd_;
};

}  // namespace martlet
