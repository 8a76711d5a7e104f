#include "vmm/debug/vmcoreinfo.h"

#include <gtest/gtest.h>

#include "tests/unit/fake_kernel.h"
#include "vmm/base/touched_pages.h"

namespace martlet {
namespace {

TEST(VmCoreInfo, IsReadByKind) {
  FakeKernel kernel;
  kernel.say("OFFSET(list_head.prev)", "8");
  kernel.say("SIZE(list_head)", "16");
  kernel.say("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "-129");
  const auto info = kernel.info();
  EXPECT_EQ(info.release(), "6.1.0-fake");
  EXPECT_EQ(info.kernel_offset(), FakeKernel::kOffset);
  EXPECT_EQ(info.symbol("_stext"), FakeKernel::kText);
  EXPECT_EQ(info.offset("list_head.prev"), 8U);
  EXPECT_EQ(info.size("list_head"), 16U);
  EXPECT_EQ(info.number("PAGE_BUDDY_MAPCOUNT_VALUE"), -129);
  EXPECT_EQ(info.symbol("list_head"), std::nullopt);
  EXPECT_EQ(info.kernel_paging()->cr3, FakeKernel::physical(FakeKernel::kTables));
  EXPECT_EQ(info.text(), kernel.text);
}

TEST(VmCoreInfo, RefusesWhatIsNone) {
  for (const std::string_view text :
       {"", "OSRELEASE=", "OSRELEASE=6.1\n", "PAGESIZE=4096\nOSRELEASE=6.1\n", "OSRELEASE=6.1\nPAGESIZE=65536\n",
        "OSRELEASE=6.1\nPAGESIZE=4096\nno equals sign\n", "OSRELEASE=6.1\nPAGESIZE=4096\nA=\x1b[2J\n"}) {
    EXPECT_FALSE(VmCoreInfo::parse(text)) << text;
  }
  EXPECT_TRUE(VmCoreInfo::parse("OSRELEASE=6.1\nPAGESIZE=4096\n"));
}

TEST(VmCoreInfo, NumbersThatAreNoneAreAbsent) {
  const auto info = VmCoreInfo::parse(
      "OSRELEASE=6.1\nPAGESIZE=4096\nSYMBOL(a)=12345678901234567890abcdef\nSYMBOL(b)=\nSYMBOL(c)=1x\nNUMBER(d)=0x\n"
      "OFFSET(e)=-1\nKERNELOFFSET=-2\n");
  ASSERT_TRUE(info);
  EXPECT_FALSE(info->symbol("a") || info->symbol("b") || info->symbol("c") || info->number("d") || info->offset("e"));
  EXPECT_EQ(info->kernel_offset(), 0U);
  EXPECT_FALSE(info->kernel_paging());
}

TEST(FindVmCoreInfo, InAPageOfItsOwnOrAmongVariables) {
  for (const std::uint64_t at : {FakeKernel::kNote, FakeKernel::kNote + 0x1c4, FakeKernel::kRam - 0x2000}) {
    const FakeKernel kernel;
    EXPECT_FALSE(find_vmcoreinfo(kernel.memory));
    kernel.publish(at);
    EXPECT_EQ(find_vmcoreinfo(kernel.memory, {}, LookFor::InPages).has_value(), at % 0x1000 == 0);
    const auto found = find_vmcoreinfo(kernel.memory);
    ASSERT_TRUE(found) << std::hex << at;
    EXPECT_EQ(found->text(), kernel.text);
  }
}

TEST(FindVmCoreInfo, WhereTheGuestSaysIfItIsThere) {
  const FakeKernel kernel;
  kernel.publish();
  const GuestRange note{GuestAddr{FakeKernel::kNote}, 0x1000};
  EXPECT_EQ(find_vmcoreinfo(kernel.memory, note).value().text(), kernel.text);
  for (const std::uint64_t lie :
       {std::uint64_t{0}, FakeKernel::kNote + 1, FakeKernel::kRam - 1, FakeKernel::kRam, ~std::uint64_t{0}}) {
    const auto found = find_vmcoreinfo(kernel.memory, GuestRange{GuestAddr{lie}, 1});
    ASSERT_TRUE(found) << lie;
    EXPECT_EQ(found->text(), kernel.text) << lie;
  }
}

TEST(FindVmCoreInfo, OfTwoThatAreProvenTheGuestSaysWhich) {
  FakeKernel kernel;
  kernel.publish();
  kernel.say("CRASHTIME", "0");
  kernel.publish(FakeKernel::kNote + 0x10000);
  const GuestRange told{GuestAddr{FakeKernel::kNote + 0x10000}, 0x1000};
  EXPECT_EQ(find_vmcoreinfo(kernel.memory, told).value().text(), kernel.text);
  EXPECT_NE(find_vmcoreinfo(kernel.memory).value().text(), kernel.text);
}

TEST(FindVmCoreInfo, WhereTheGuestSaysIsNotEnough) {
  FakeKernel kernel;
  kernel.publish();
  const auto truth = kernel.text;
  kernel.say("SYMBOL(swapper_pg_dir)", "0");
  auto made_up = std::string{"OSRELEASE=666\nPAGESIZE=4096\n"};
  std::swap(kernel.text, made_up);
  kernel.publish(0x9000);
  const auto found = find_vmcoreinfo(kernel.memory, GuestRange{GuestAddr{0x9000}, 0x100});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->text(), truth) << "it is not proven, and another one is";
}

TEST(FindVmCoreInfo, InThePageThatTheNoteIsMadeFrom) {
  const FakeKernel kernel;
  ASSERT_TRUE(kernel.memory.write(GuestAddr{0x5000}, std::as_bytes(std::span{kernel.text})));
  EXPECT_TRUE(find_vmcoreinfo(kernel.memory));
}

TEST(FindVmCoreInfo, PrefersTheOneWhosePageTablesAreThere) {
  FakeKernel kernel;
  kernel.publish(FakeKernel::kNote + 0x10000);
  const std::string truth = kernel.text;
  kernel.text = "OSRELEASE=forged\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff80001000\nNUMBER(phys_base)=0\n";
  kernel.publish(FakeKernel::kNote);
  EXPECT_EQ(find_vmcoreinfo(kernel.memory)->text(), truth);
}

TEST(FindVmCoreInfo, ACopyIsBetterThanNothing) {
  FakeKernel kernel;
  kernel.text = "OSRELEASE=lonely\nPAGESIZE=4096\n";
  kernel.publish();
  EXPECT_EQ(find_vmcoreinfo(kernel.memory)->release(), "lonely");
}

TEST(FindVmCoreInfo, ManyForgeriesCostLittle) {
  FakeKernel kernel;
  kernel.text = "OSRELEASE=forged\nPAGESIZE=4096\n";
  for (std::uint64_t at = 0x100000; at < FakeKernel::kTextPhysical; at += 0x1000) {
    kernel.publish(at);
  }
  EXPECT_EQ(find_vmcoreinfo(kernel.memory)->release(), "forged");
}

/// 300 times, from 1 MiB on: what looks like it, and is none.
void forge(const FakeKernel& kernel, std::string_view forgery) {
  for (std::uint64_t page = 0; page < 300; ++page) {
    ASSERT_TRUE(kernel.memory.write(GuestAddr{0x100000 + page * 0x1000}, std::as_bytes(std::span{forgery})));
  }
}

TEST(FindVmCoreInfo, ForgeriesThatAreNoneCostLittleToo) {
  const FakeKernel kernel;
  forge(kernel, {"\x0b\0\0\0\x0d\0\0\0\0\0\0\0VMCOREINFO\0\0OSRELEASE=none", 38});
  kernel.publish(FakeKernel::kNote + 0x1c4);
  EXPECT_FALSE(find_vmcoreinfo(kernel.memory)) << "looked at more than is sensible";
}

TEST(FindVmCoreInfo, ForgeriesInPagesHideNoVariable) {
  const FakeKernel kernel;
  forge(kernel, "OSRELEASE=none");
  kernel.publish(FakeKernel::kNote + 0x1c4);
  EXPECT_EQ(find_vmcoreinfo(kernel.memory).value().text(), kernel.text);
}

TEST(FindVmCoreInfo, LeavesUntouchedMemoryAlone) {
  const FakeKernel kernel{
      std::vector<GuestRange>{{GuestAddr{0}, FakeKernel::kRam}, {GuestAddr{1ULL << 32U}, 1ULL << 36U}}};
  kernel.publish(FakeKernel::kNote + 0x1c4);
  const auto touched = [&] {
    std::uint64_t total = 0;
    visit_touched(kernel.memory, [&](const GuestRange& run) {
      total += run.size;
      return true;
    });
    return total;
  };
  const auto before = touched();
  EXPECT_TRUE(find_vmcoreinfo(kernel.memory));
  EXPECT_EQ(touched(), before);
  EXPECT_LT(before, FakeKernel::kRam + 1);
}

}  // namespace
}  // namespace martlet
