#pragma once

#include <cstdint>
#include <optional>

#include "vmm/base/guest_memory.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// Where an x86-64 Linux kernel that was linked for 0xffffffff81000000 without KASLR now runs.
constexpr std::uint64_t kLinkedKernelText = 0xffff'ffff'8100'0000;

/// The address of a running Linux kernel's first code (_text), without the guest's help: the lowest executable page
/// in the 1 GiB that the kernel's image is mapped in. Linux unmaps what lies around its image there, early in its
/// 64-bit start, and moves the image by multiples of 2 MiB (CONFIG_PHYSICAL_ALIGN).
///
/// Nothing before the kernel has built its page tables (while it unpacks itself, say), when `cpu` has been moved out
/// of them, or when the guest is no Linux.
[[nodiscard]] std::optional<std::uint64_t> find_kernel_text(const GuestMemory& memory, const CpuState& cpu);

}  // namespace martlet
