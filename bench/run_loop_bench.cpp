// Martlet's run loop against the barest loop around ioctl(KVM_RUN), on the same guest: one that does
// nothing but OUT, IN or MMIO. Rounds of both alternate, so that the host's noise hits both alike; the
// figure to read is the ratio of the medians.

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/kvm/coalesced.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/x86_64/ram.h"

namespace martlet {
namespace {

constexpr GuestAddr kCode{0x1000};
constexpr std::uint16_t kPort = 0x10;
constexpr int kExitsPerRound = 5000;
constexpr int kRounds = 41;

/// Real-mode code that accesses the device for ever.
using Code = std::array<std::uint8_t, 8>;
constexpr Code kOut = {0xe6, kPort, 0xeb, 0xfc};               // out 0x10, al; jmp
constexpr Code kIn = {0xe4, kPort, 0xeb, 0xfc};                // in al, 0x10; jmp
constexpr Code kStore = {0x67, 0xc6, 0x03, 0x2a, 0xeb, 0xfa};  // mov byte [ebx], 42; jmp
constexpr std::uint32_t kMmioAddress = 0x80000;                // EBX: past the RAM we map

/// Counts accesses and ends the round after enough of them.
struct Counter final : BusDevice {
  StopLine* stop = nullptr;
  int left = 0;
  void access() noexcept {
    if (--left == 0) {
      stop->request({.kind = Ending::Kind::Quit});
    }
  }
  void read(std::uint64_t, std::span<std::byte> data) noexcept override {
    data[0] = std::byte{0x2a};
    access();
  }
  void write(std::uint64_t, std::span<const std::byte>) noexcept override { access(); }
};

struct TinyMachine {
  KvmSystem system;
  GuestMemory memory{std::array{GuestRange{GuestAddr{0}, 0x10000}}};
  Vm vm{system};
  Counter device;
  Buses buses;
  Vcpu vcpu;

  explicit TinyMachine(const Code& code) : vcpu{system, (vm.map(memory), vm), 0} {
    REQUIRE(memory.write(kCode, code));
    buses.ports.insert(kPort, 1, "counter", device);
    buses.mmio.insert(kMmioAddress, 1, "counter", device);
    kvm_sregs sregs{};
    kvm_ioctl(vcpu.fd(), KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    sregs.ds.limit = 0xffffffff;
    kvm_ioctl(vcpu.fd(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
    kvm_regs regs{};
    regs.rip = raw(kCode);
    regs.rbx = kMmioAddress;
    regs.rflags = 2;
    kvm_ioctl(vcpu.fd(), KVM_SET_REGS, &regs, "KVM_SET_REGS");
  }
};

using Clock = std::chrono::steady_clock;

std::chrono::nanoseconds martlet_round(TinyMachine& machine, Dispatcher& dispatcher, CoalescedWrites& coalesced) {
  StopLine stop;
  machine.device.stop = &stop;
  machine.device.left = kExitsPerRound;
  const auto start = Clock::now();
  machine.vcpu.run(dispatcher, coalesced, stop);
  return Clock::now() - start;
}

std::chrono::nanoseconds bare_round(TinyMachine& machine) {
  auto& run = machine.vcpu.shared();
  const auto start = Clock::now();
  for (int exits = 0; exits < kExitsPerRound;) {
    REQUIRE(::ioctl(machine.vcpu.fd(), KVM_RUN, 0) == 0);
    if (run.exit_reason == KVM_EXIT_IO) {
      reinterpret_cast<std::uint8_t*>(&run)[run.io.data_offset] = 0x2a;
      ++exits;
    } else if (run.exit_reason == KVM_EXIT_MMIO) {
      run.mmio.data[0] = 0x2a;
      ++exits;
    }
  }
  return Clock::now() - start;
}

template <class T>
T median(std::vector<T>& values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

void compare(const char* name, const Code& code) {
  TinyMachine machine{code};
  Dispatcher dispatcher{machine.buses};
  CoalescedWrites coalesced{machine.vm.fd(), machine.buses};
  coalesced.attach(machine.vcpu.shared(), machine.system.extension(KVM_CAP_COALESCED_MMIO));
  std::vector<std::chrono::nanoseconds> ours;
  std::vector<std::chrono::nanoseconds> bare;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    ours.push_back(martlet_round(machine, dispatcher, coalesced));
    bare.push_back(bare_round(machine));
    ratios.push_back(static_cast<double>(ours.back().count()) / static_cast<double>(bare.back().count()));
  }
  std::printf("%-5s  Martlet %6.0f ns/exit, bare loop %6.0f ns/exit, ratio of medians %.4f, median of ratios %.4f\n",
              name, static_cast<double>(median(ours).count()) / kExitsPerRound,
              static_cast<double>(median(bare).count()) / kExitsPerRound,
              static_cast<double>(median(ours).count()) / static_cast<double>(median(bare).count()), median(ratios));
}

TEST_CASE("run loop against the bare loop") {
  compare("OUT", kOut);
  compare("IN", kIn);
  compare("MMIO", kStore);
}

}  // namespace
}  // namespace martlet
