#include "vmm/x86_64/int3_probe.h"

#include <sys/ioctl.h>

#include <array>
#include <cstdint>
#include <span>

#include "vmm/base/guest_memory.h"
#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace martlet {

bool int3_exits(const KvmSystem& system) {
  // Real mode. Vector 3 of the table at 0 leads to the HLT, and so does going on.
  constexpr std::uint16_t kCode = 0x800;
  constexpr std::array<std::uint8_t, 2> kInstructions{0xcc, 0xf4};  // int3; hlt
  constexpr std::array<std::uint16_t, 2> kVector{kCode + 1, 0};     // offset, segment
  const GuestMemory memory{std::array{GuestRange{GuestAddr{0}, 0x1000}}};
  Vm vm{system};
  vm.map(memory);
  Vcpu vcpu{system, vm, 0};
  if (!memory.write(GuestAddr{3 * sizeof(kVector)}, kVector) || !memory.write(GuestAddr{kCode}, kInstructions)) {
    return false;
  }
  kvm_sregs sregs{};
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rsp = 0x1000;
  regs.rflags = 2;
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  const auto done = [&vcpu](unsigned long request, auto* value) { return ::ioctl(vcpu.fd(), request, value) == 0; };
  if (!done(KVM_GET_SREGS, &sregs)) {
    return false;
  }
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  if (!done(KVM_SET_SREGS, &sregs) || !done(KVM_SET_REGS, &regs) || !done(KVM_SET_GUEST_DEBUG, &debug)) {
    return false;
  }
  return ::ioctl(vcpu.fd(), KVM_RUN, 0) == 0 && std::holds_alternative<Debug>(decode(vcpu.shared()));
}

}  // namespace martlet
