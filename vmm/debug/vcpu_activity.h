#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "vmm/kvm/uapi.h"

namespace martlet {

/// What a vCPU at rest was doing.
struct VcpuSample {
  std::uint64_t rip = 0;
  std::uint64_t exits = 0;  ///< to user space so far, without kicks
  bool started = true;      ///< else it waits for another vCPU to start it
  bool halted = false;
  bool interrupts_on = false;
};

/// From a vCPU at rest; `exits` is the caller's to fill. Nothing if KVM will not tell.
[[nodiscard]] VcpuSample sample_vcpu(int fd) noexcept;

/// What a machine does, by some samples of each vCPU a few moments apart.
struct MachineActivity {
  bool hangs = false;  ///< it will never do anything again
  int vcpu = -1;       ///< the one that says so; -1: all of them
  bool dead = false;   ///< all halted with interrupts off: needs no waiting
  std::string text{};  ///< one line for people
};

/// `samples[n]` is what all vCPUs did at one moment. `name` gives an address a name: the hook for symbols.
[[nodiscard]] MachineActivity activity_of(std::span<const std::vector<VcpuSample>> samples,
                                          const std::function<std::string(std::uint64_t)>& name);

/// "0xffffffff81a0b2c3"
[[nodiscard]] std::string name_address(std::uint64_t addr);

}  // namespace martlet
