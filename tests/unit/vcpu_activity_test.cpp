#include "vmm/debug/vcpu_activity.h"

#include <gtest/gtest.h>

namespace martlet {
namespace {

using Moments = std::vector<std::vector<VcpuSample>>;

constexpr VcpuSample kDead{.rip = 0x1000, .halted = true};
constexpr VcpuSample kIdle{.rip = 0x2000, .halted = true, .interrupts_on = true};
constexpr VcpuSample kDeaf{.rip = 0x3000};
constexpr VcpuSample kRuns{.rip = 0x4000, .interrupts_on = true};
constexpr VcpuSample kWaits{.started = false};

MachineActivity activity(const Moments& moments) { return activity_of(moments, name_address); }
Moments always(std::vector<VcpuSample> cpus) { return Moments(4, cpus); }

TEST(VcpuActivity, AllHaltedWithInterruptsOffIsTheEnd) {
  for (const auto& cpus : {std::vector{kDead}, {kDead, kDead}, {kDead, kWaits}}) {
    const auto result = activity(always(cpus));
    EXPECT_TRUE(result.hangs && result.dead) << result.text;
    EXPECT_NE(result.text.find("halted with interrupts off at 0x1000"), std::string::npos) << result.text;
  }
}

TEST(VcpuActivity, OneThatWaitsIsNoHang) {
  for (const auto& cpus : {std::vector{kIdle}, {kIdle, kIdle}, {kDead, kIdle}, {kIdle, kWaits}}) {
    EXPECT_FALSE(activity(always(cpus)).hangs) << activity(always(cpus)).text;
  }
  EXPECT_EQ(activity(always({kIdle, kIdle})).text, "all vCPUs idle, waiting for interrupts");
}

TEST(VcpuActivity, OneThatSpinsWithInterruptsOffHangsThemAll) {
  const auto result = activity(always({kIdle, kDeaf}));
  EXPECT_TRUE(result.hangs);
  EXPECT_FALSE(result.dead);
  EXPECT_EQ(result.vcpu, 1);
  EXPECT_EQ(result.text, "spins with interrupts off at 0x3000");
}

TEST(VcpuActivity, AHandlerSeenByChanceIsNoHang) {
  EXPECT_FALSE(activity({{kDeaf}, {kRuns}, {kDeaf}, {kDeaf}}).hangs);
  EXPECT_FALSE(activity({{kDead}, {kDead}, {kIdle}, {kDead}}).hangs);
}

TEST(VcpuActivity, OneThatUsesDevicesIsNoHang) {
  auto later = kDeaf;
  later.exits = 1;
  EXPECT_FALSE(activity({{kDeaf}, {kDeaf}, {later}}).hangs);
}

TEST(VcpuActivity, WithInterruptsOnItMayBeWork) {
  const auto spins = activity(always({kRuns}));
  EXPECT_FALSE(spins.hangs);
  EXPECT_EQ(spins.text, "vCPU 0 spins with interrupts on at 0x4000");
  auto elsewhere = kRuns;
  elsewhere.rip = 0x9000;
  EXPECT_EQ(activity({{kRuns}, {elsewhere}, {kRuns}}).text, "vCPU 0 runs at 0x4000");
}

TEST(VcpuActivity, NothingKnownIsNoHang) {
  EXPECT_FALSE(activity({}).hangs);
  EXPECT_FALSE(activity({{}}).hangs);
}

}  // namespace
}  // namespace martlet
