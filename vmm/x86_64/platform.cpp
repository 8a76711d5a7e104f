#include "vmm/x86_64/platform.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "vmm/base/error.h"
#include "vmm/kvm/table.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

// Intel SDM vol. 4.
enum Msr : std::uint32_t {
  kMiscEnable = 0x1a0,
  kMtrrDefType = 0x2ff,
};
constexpr std::uint64_t kFastStrings = 1;           // IA32_MISC_ENABLE bit 0
constexpr std::uint64_t kMtrrEnable = 1ULL << 11U;  // without it Linux also goes without PAT
constexpr std::uint64_t kMtrrWriteBack = 6;

// Local APIC registers, as offsets into its page (Intel SDM vol. 3A, table 11-1).
constexpr std::size_t kLvtLint0 = 0x350;
constexpr std::size_t kLvtLint1 = 0x360;
constexpr std::uint32_t kDeliveryNmi = 4U << 8U;
constexpr std::uint32_t kDeliveryExtInt = 7U << 8U;

void set_cpuid(const Vcpu& vcpu, std::span<const kvm_cpuid_entry2> entries) {
  KvmTable<kvm_cpuid2, kvm_cpuid_entry2> table{entries.size()};
  table.header().nent = static_cast<std::uint32_t>(entries.size());
  std::ranges::copy(entries, table.entries().begin());
  kvm_ioctl(vcpu.fd(), KVM_SET_CPUID2, &table.header(), "KVM_SET_CPUID2");
}

void set_msrs(const Vcpu& vcpu) {
  constexpr std::array kValues = {
      kvm_msr_entry{.index = kMiscEnable, .reserved = 0, .data = kFastStrings},
      kvm_msr_entry{.index = kMtrrDefType, .reserved = 0, .data = kMtrrEnable | kMtrrWriteBack},
  };
  KvmTable<kvm_msrs, kvm_msr_entry> table{kValues.size()};
  table.header().nmsrs = kValues.size();
  std::ranges::copy(kValues, table.entries().begin());
  const auto set = static_cast<std::size_t>(kvm_ioctl(vcpu.fd(), KVM_SET_MSRS, &table.header(), "KVM_SET_MSRS"));
  if (set != kValues.size()) {
    throw HostError{fmt::format("this host's KVM refuses MSR {:#x}", kValues.at(set).index)};
  }
}

void wire_local_apic(const Vcpu& vcpu) {
  kvm_lapic_state apic{};
  kvm_ioctl(vcpu.fd(), KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC");
  std::memcpy(&apic.regs[kLvtLint0], &kDeliveryExtInt, sizeof kDeliveryExtInt);
  std::memcpy(&apic.regs[kLvtLint1], &kDeliveryNmi, sizeof kDeliveryNmi);
  kvm_ioctl(vcpu.fd(), KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC");
}

}  // namespace

void create_interrupt_controllers(const KvmSystem& system, Vm& vm, std::uint32_t cpus) {
  if (system.extension(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) {
    std::uint64_t identity_map = raw(layout::kKvmIdentityMap.start);
    kvm_ioctl(vm.fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
  }
  kvm_ioctl(vm.fd(), KVM_SET_TSS_ADDR, raw(layout::kKvmTss.start), "KVM_SET_TSS_ADDR");
  if (system.extension(KVM_CAP_X2APIC_API) > 0) {
    vm.enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
              "KVM_CAP_X2APIC_API");
  } else if (cpus > 255) {
    throw HostError{fmt::format(
        "--cpus {}: this host's KVM has no KVM_CAP_X2APIC_API; 255 at most, or use Linux 4.8 or later", cpus)};
  }
  kvm_ioctl(vm.fd(), KVM_CREATE_IRQCHIP, 0UL, "KVM_CREATE_IRQCHIP");
  kvm_pit_config pit{};
  pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 too, by which kernels measure the TSC
  kvm_ioctl(vm.fd(), KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
}

void prepare_vcpu(Vcpu& vcpu, std::span<const kvm_cpuid_entry2> cpuid) {
  set_cpuid(vcpu, cpuid);
  set_msrs(vcpu);
  wire_local_apic(vcpu);
}

}  // namespace martlet
