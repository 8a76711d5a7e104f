#include "vmm/x86_64/vcpu_registers.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "vmm/kvm/table.h"
#include "vmm/kvm/uapi.h"

namespace martlet {
namespace {

constexpr std::uint32_t kMsrLstar = 0xc0000082;
constexpr std::uint32_t kMsrKernelGsBase = 0xc0000102;

// Intel SDM 1 §13.4: the XSAVE area in its standard format.
constexpr std::size_t kXsaveBitmap = 512;  // XSTATE_BV, in the header
constexpr std::size_t kYmmHigh = 576;      // where AVX state is, as CPUID leaf 0xd, subleaf 2 says of every CPU so far
constexpr std::uint64_t kXstateAvx = 1U << 2U;

template <typename T>
bool get(const Vcpu& vcpu, unsigned long request, T& value) {
  return ::ioctl(vcpu.fd(), request, &value) == 0;
}

bool has_avx(const kvm_xcrs& xcrs) {
  const auto used = std::span{xcrs.xcrs}.first(std::min<std::size_t>(xcrs.nr_xcrs, KVM_MAX_XCRS));
  return std::ranges::any_of(used, [](const kvm_xcr& xcr) { return xcr.xcr == 0 && (xcr.value & kXstateAvx) != 0; });
}

/// The upper halves of the YMM registers, as bytes of a kvm_xsave.
std::span<std::byte> ymm_high_of(kvm_xsave& area) {
  return std::as_writable_bytes(std::span{area.region}).subspan(kYmmHigh, std::size_t{16} * 16);
}

}  // namespace

std::optional<CpuState> read_cpu_state(const Vcpu& vcpu) {
  CpuState state;
  if (!get(vcpu, KVM_GET_REGS, state.regs) || !get(vcpu, KVM_GET_SREGS, state.sregs) ||
      !get(vcpu, KVM_GET_FPU, state.fpu)) {
    return std::nullopt;
  }
  KvmTable<kvm_msrs, kvm_msr_entry> msrs{2};
  msrs.header().nmsrs = 2;
  msrs.entries()[0].index = kMsrKernelGsBase;
  msrs.entries()[1].index = kMsrLstar;
  if (::ioctl(vcpu.fd(), KVM_GET_MSRS, &msrs.header()) == 2) {
    state.kernel_gs_base = msrs.entries()[0].data;
    state.lstar = msrs.entries()[1].data;
  }
  kvm_mp_state mp_state{};
  if (get(vcpu, KVM_GET_MP_STATE, mp_state)) {
    state.mp_state = mp_state.mp_state;
  }
  kvm_xcrs xcrs{};
  kvm_xsave area{};
  if (get(vcpu, KVM_GET_XCRS, xcrs) && has_avx(xcrs) && get(vcpu, KVM_GET_XSAVE, area)) {
    state.has_avx = true;
    std::uint64_t bitmap = 0;
    std::memcpy(&bitmap, std::as_bytes(std::span{area.region}).subspan(kXsaveBitmap).data(), sizeof(bitmap));
    if ((bitmap & kXstateAvx) != 0) {  // else they are in their initial state: zero
      std::ranges::copy(ymm_high_of(area), std::as_writable_bytes(std::span{state.ymm_high}).begin());
    }
  }
  return state;
}

bool write_cpu_state(const Vcpu& vcpu, const CpuState& state, CpuParts parts) {
  const auto set = [&vcpu](unsigned long request, const auto& value) {
    return ::ioctl(vcpu.fd(), request, &value) == 0;
  };
  bool done = true;
  if (parts.regs) {
    done = set(KVM_SET_REGS, state.regs) && done;
  }
  if (parts.sregs) {
    done = set(KVM_SET_SREGS, state.sregs) && done;
  }
  if (parts.fpu) {
    done = set(KVM_SET_FPU, state.fpu) && done;
  }
  if (parts.kernel_gs_base) {
    KvmTable<kvm_msrs, kvm_msr_entry> msrs{1};
    msrs.header().nmsrs = 1;
    msrs.entries()[0].index = kMsrKernelGsBase;
    msrs.entries()[0].data = state.kernel_gs_base;
    done = ::ioctl(vcpu.fd(), KVM_SET_MSRS, &msrs.header()) == 1 && done;
  }
  if (parts.ymm_high && state.has_avx) {
    kvm_xsave area{};
    if (!get(vcpu, KVM_GET_XSAVE, area)) {
      return false;
    }
    const auto bytes = std::as_writable_bytes(std::span{area.region});
    std::uint64_t bitmap = 0;
    std::memcpy(&bitmap, bytes.subspan(kXsaveBitmap).data(), sizeof(bitmap));
    bitmap |= kXstateAvx;
    std::memcpy(bytes.subspan(kXsaveBitmap).data(), &bitmap, sizeof(bitmap));
    std::ranges::copy(std::as_bytes(std::span{state.ymm_high}), ymm_high_of(area).begin());
    done = set(KVM_SET_XSAVE, area) && done;
  }
  return done;
}

}  // namespace martlet
