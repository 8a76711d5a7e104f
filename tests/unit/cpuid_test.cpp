#include "vmm/x86_64/cpuid.h"

#include <asm/kvm_para.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>

namespace martlet {
namespace {

kvm_cpuid_entry2 leaf(std::uint32_t function, std::uint32_t index = 0, std::uint32_t eax = 0, std::uint32_t ebx = 0,
                      std::uint32_t ecx = 0, std::uint32_t edx = 0) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

std::optional<kvm_cpuid_entry2> find(const std::vector<kvm_cpuid_entry2>& entries, std::uint32_t function,
                                     std::uint32_t index = 0) {
  const auto found = std::ranges::find_if(
      entries, [&](const auto& entry) { return entry.function == function && entry.index == index; });
  return found == entries.end() ? std::nullopt : std::optional{*found};
}

/// A host with everything: Intel's and AMD's leaves.
std::vector<kvm_cpuid_entry2> host() {
  return {
      leaf(0, 0, 7),
      leaf(1, 0, 0, 0xff02'0000, 0, 0xffff'ffff),
      leaf(4, 0, 0xfc00'c121),  // L1 data
      leaf(4, 3, 0xfc00'c163),  // L3
      leaf(4, 4, 0),
      leaf(0xb, 0, 1, 2, 0x100, 99),
      leaf(0x1f, 0, 1, 2, 0x100, 99),
      leaf(KVM_CPUID_FEATURES, 0, 0x0100'7efb),
      leaf(0x80000008, 0, 0x3030, 0, 0x7007),
      leaf(0x8000001d, 0, 0x4121),
      leaf(0x8000001d, 3, 0x1c163),
      leaf(0x8000001e, 0, 99, 0x101, 3),
  };
}

TEST(Cpuid, TopologyLeavesCountCoresOfOneSocket) {
  const auto cpuid = make_cpuid(host(), {.apic_id = 5, .cpus = 6, .tsc_deadline = true});
  for (const std::uint32_t function : {0xbU, 0x1fU}) {
    const auto threads = find(cpuid, function, 0);
    const auto cores = find(cpuid, function, 1);
    const auto last = find(cpuid, function, 2);
    ASSERT_TRUE(threads && cores && last);
    EXPECT_EQ(threads->eax, 0U);
    EXPECT_EQ(threads->ebx, 1U);
    EXPECT_EQ(threads->ecx, 0x100U);
    EXPECT_EQ(cores->eax, 3U) << "ids 0 to 5 take three bits";
    EXPECT_EQ(cores->ebx, 6U);
    EXPECT_EQ(cores->ecx, 0x201U);
    EXPECT_EQ(last->ecx, 2U) << "type 0 ends the list";
    EXPECT_EQ(threads->edx, 5U);
    EXPECT_EQ(cores->edx, 5U);
  }
  EXPECT_EQ(find(cpuid, 0)->eax, 0xbU) << "leaf 0xB is announced";
}

TEST(Cpuid, LeafOneTellsApicIdCountAndTimer) {
  const auto one = find(make_cpuid(host(), {.apic_id = 0, .cpus = 1, .tsc_deadline = false}), 1);
  EXPECT_EQ(one->ebx, 0x0001'0000U);
  EXPECT_EQ(one->edx & (1U << 28U), 0U) << "one CPU: no HTT";
  EXPECT_EQ(one->ecx, 1U << 31U) << "hypervisor, no deadline timer";
  const auto four = find(make_cpuid(host(), {.apic_id = 3, .cpus = 4, .tsc_deadline = true}), 1);
  EXPECT_EQ(four->ebx, 0x0304'0000U);
  EXPECT_NE(four->edx & (1U << 28U), 0U);
  EXPECT_NE(four->ecx & (1U << 24U), 0U);
}

TEST(Cpuid, OnlyTheLastLevelCacheIsShared) {
  const auto cpuid = make_cpuid(host(), {.apic_id = 0, .cpus = 6, .tsc_deadline = true});
  EXPECT_EQ((find(cpuid, 4, 0)->eax >> 14U) & 0xfffU, 0U);
  EXPECT_EQ((find(cpuid, 4, 3)->eax >> 14U) & 0xfffU, 7U);
  EXPECT_EQ(find(cpuid, 4, 3)->eax >> 26U, 7U) << "core ids in the package";
  EXPECT_EQ(find(cpuid, 4, 4)->eax, 0U) << "the end of the list stays the end";
  EXPECT_EQ((find(cpuid, 0x8000001d, 0)->eax >> 14U) & 0xfffU, 0U);
  EXPECT_EQ((find(cpuid, 0x8000001d, 3)->eax >> 14U) & 0xfffU, 7U);
}

TEST(Cpuid, AmdLeavesAgree) {
  const auto cpuid = make_cpuid(host(), {.apic_id = 3, .cpus = 4, .tsc_deadline = true});
  EXPECT_EQ(find(cpuid, 0x80000008)->ecx & 0xf0ffU, 0x2003U) << "four cores, two bits of APIC id";
  const auto topology = find(cpuid, 0x8000001e);
  EXPECT_EQ(topology->eax, 3U);
  EXPECT_EQ(topology->ebx & 0xffffU, 3U);
  EXPECT_EQ(topology->ecx & 0x7ffU, 0U);
}

std::array<std::uint32_t, 4> amd_host(std::uint32_t function, std::uint32_t index) {
  switch (function) {
    case 0:
      return {0x10, 0x68747541, 0, 0};
    case 0x80000001:
      return {0, 0, 1U << 22U, 0};
    case 0x80000005:
      return {1, 2, 3, 4};
    case 0x8000001d:
      return {index < 3 ? 0x121U + index : 0U, 5, 6, 7};
    default:
      return {};
  }
}

TEST(Cpuid, AmdGuestsSeeTheHostsCaches) {
  std::vector<kvm_cpuid_entry2> entries{leaf(7, 0, 0, 0, 0, 0xffff'ffff), leaf(0x80000005), leaf(0x8000001d)};
  mend_amd(entries, amd_host);
  EXPECT_EQ(find(entries, 0x80000005)->edx, 4U);
  EXPECT_EQ(find(entries, 0x8000001d, 0)->eax, 0x121U);
  EXPECT_EQ(find(entries, 0x8000001d, 2)->eax, 0x123U);
  EXPECT_EQ(find(entries, 0x8000001d, 3)->eax, 0U) << "the end of the list";
  EXPECT_FALSE(find(entries, 0x8000001d, 4));
  EXPECT_EQ(find(entries, 7)->edx, ~(1U << 29U)) << "no ARCH_CAPABILITIES";
}

TEST(Cpuid, IntelGuestsKeepWhatKvmSays) {
  std::vector<kvm_cpuid_entry2> entries{leaf(7, 0, 0, 0, 0, 0xffff'ffff), leaf(0x80000005)};
  mend_amd(entries, [](std::uint32_t, std::uint32_t) { return std::array<std::uint32_t, 4>{0, 0x756e6547, 0, 0}; });
  EXPECT_EQ(entries.size(), 2U);
  EXPECT_EQ(find(entries, 7)->edx, 0xffff'ffffU);
}

TEST(Cpuid, IdsAbove255AreX2apicIds) {
  const auto cpuid = make_cpuid(host(), {.apic_id = 299, .cpus = 300, .tsc_deadline = true});
  EXPECT_EQ(find(cpuid, 0xb, 1)->edx, 299U);
  EXPECT_EQ(find(cpuid, 0xb, 1)->eax, 9U);
  EXPECT_EQ(find(cpuid, 1)->ebx >> 24U, 299U & 0xffU);
  EXPECT_EQ((find(cpuid, 1)->ebx >> 16U) & 0xffU, 255U) << "saturates";
  constexpr auto kExtendedDestination = 1U << KVM_FEATURE_MSI_EXT_DEST_ID;
  EXPECT_NE(find(cpuid, KVM_CPUID_FEATURES)->eax & kExtendedDestination, 0U);
  const auto few = make_cpuid(host(), {.apic_id = 0, .cpus = 255, .tsc_deadline = true});
  EXPECT_EQ(find(few, KVM_CPUID_FEATURES)->eax, 0x0100'7efbU) << "passed through untouched";
}

}  // namespace
}  // namespace martlet
