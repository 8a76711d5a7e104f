// What KVM is told of how a vCPU is watched. What it does then is tests/kvm's business, as far as a host can do it:
// one that interprets guests, or emulates their CPU, reports no int3.
#include "vmm/machine_debugger.h"

#include <gtest/gtest.h>

namespace martlet {
namespace {

constexpr bool kBlocks = true;

unsigned control_of(const GuestDebug& debug, bool can_block_interrupts = kBlocks) {
  return to_kvm(debug, can_block_interrupts).control;
}

TEST(GuestDebugForKvm, NothingAtAllMeansNotWatched) {
  EXPECT_EQ(control_of({}), 0U);
  EXPECT_EQ(control_of({.single_step = false, .int3_exits = true}), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
}

TEST(GuestDebugForKvm, Int3ExitsAndGoesBackToTheGuestWhoseItIs) {
  EXPECT_EQ(control_of({.int3_exits = true, .inject = Injection::Breakpoint}),
            KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP);
  EXPECT_EQ(control_of({.inject = Injection::Breakpoint}), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP)
      << "also when no breakpoint is left";
  EXPECT_EQ(control_of({.inject = Injection::Debug}), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB);
}

TEST(GuestDebugForKvm, AStepHoldsInterruptsBackWhereTheHostCan) {
  const GuestDebug step{.single_step = true, .block_interrupts = true};
  EXPECT_EQ(control_of(step), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | unsigned{KVM_GUESTDBG_BLOCKIRQ});
  EXPECT_EQ(control_of(step, !kBlocks), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
  EXPECT_EQ(control_of({.single_step = true}), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
}

TEST(GuestDebugForKvm, DebugRegistersAreTheDebuggers) {
  const auto wanted = to_kvm({.dr = {0x1000, 0x2000, 0x3000, 0x4000}, .dr7 = 0x6aa}, kBlocks);
  EXPECT_EQ(wanted.control, unsigned{KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP});
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_EQ(wanted.arch.debugreg[i], 0x1000U * (i + 1));
  }
  EXPECT_EQ(wanted.arch.debugreg[7], 0x6aaU);
}

}  // namespace
}  // namespace martlet
