#pragma once
// KVM's user-space interface, made right for C++. Include this, never <linux/kvm.h>.

#include <linux/stddef.h>

// Linux before 6.5 declares flexible arrays by an empty struct, which takes no space in C but a byte in
// C++: sizes, offsets and with them ioctl numbers would all be wrong.
#undef __DECLARE_FLEX_ARRAY
// NOLINTNEXTLINE(bugprone-reserved-identifier): the kernel's own name
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_irq_routing) == 8 &&
              sizeof(kvm_coalesced_mmio_ring) == 8 && sizeof(kvm_stats_desc) == 16);
