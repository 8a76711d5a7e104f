#include "vmm/x86_64/irq_routes.h"

#include <gtest/gtest.h>

namespace martlet {
namespace {

TEST(IrqRoutes, AMessageIsWhatTheGuestWrote) {
  const auto entry = msi_route(30, 0x0000'0100'fee0'1000, 0x4021);
  EXPECT_EQ(entry.gsi, 30U);
  EXPECT_EQ(entry.type, static_cast<std::uint32_t>(KVM_IRQ_ROUTING_MSI));
  EXPECT_EQ(entry.u.msi.address_lo, 0xfee0'1000U);
  EXPECT_EQ(entry.u.msi.address_hi, 0x100U);
  EXPECT_EQ(entry.u.msi.data, 0x4021U);
}

TEST(IrqRoutes, NoMessageMakesKvmRefuseTheTable) {  // EINVAL for these bits, and the VM would end
  EXPECT_EQ(msi_route(30, 0xffff'ffff'ffff'ffff, 0).u.msi.address_hi & 0xffU, 0U);
}

}  // namespace
}  // namespace martlet
