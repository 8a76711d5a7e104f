#include "vmm/debug/backtrace.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/unit/fake_kernel.h"
#include "vmm/debug/post_mortem.h"

namespace martlet {
namespace {

constexpr std::uint64_t kText = FakeKernel::kText;
constexpr std::uint64_t kStack = FakeKernel::kDirectMap + 0x10'0000;

enum Reg : unsigned { Undefined = 0, PrevSp = 1, Bp = 4, Sp = 5, BpIndirect = 8, SpIndirect = 9 };

struct Row {
  std::uint64_t offset;  // from the text's begin
  std::int16_t sp_offset = 0;
  std::int16_t bp_offset = 0;
  Reg sp = Undefined;
  Reg bp = Undefined;
  OrcTable::Kind kind = OrcTable::Kind::Unknown;
};
using Kind = OrcTable::Kind;

enum class Format { Old, New };

/// The tables of `rows` as a linker leaves them, each function padded by rows like it: most code is called.
OrcTable table(Format format, const std::vector<Row>& rows) {
  constexpr std::uint64_t kIpAddress = kText + 0x40'0000;
  std::vector<std::byte> ips;
  std::vector<std::byte> entries;
  const auto append = [](std::vector<std::byte>& to, const auto& value) {
    const auto bytes = std::as_bytes(std::span{&value, 1});
    to.insert(to.end(), bytes.begin(), bytes.end());
  };
  const auto add = [&](const Row& row) {
    append(ips, static_cast<std::int32_t>(kText + row.offset - (kIpAddress + ips.size())));
    append(entries, row.sp_offset);
    append(entries, row.bp_offset);
    unsigned bits = row.sp | row.bp << 4U;
    if (format == Format::New) {
      bits |= static_cast<unsigned>(row.kind) << 8U;
    } else if (row.kind == Kind::EndOfStack) {
      bits |= 1U << 11U;
    } else if (row.kind == Kind::Regs || row.kind == Kind::PartialRegs) {
      bits |= (static_cast<unsigned>(row.kind) - 2) << 8U;
    }
    append(entries, static_cast<std::uint16_t>(bits));
  };
  for (const auto& row : rows) {
    add(row);
  }
  for (std::uint64_t i = 0; i < 20; ++i) {
    add({.offset = 0x10'0000 + i, .sp_offset = 8, .sp = Sp, .kind = Kind::Call});
  }
  return OrcTable{kIpAddress, ips, entries};
}

std::vector<std::uint64_t> offsets(const std::vector<Frame>& frames) {
  std::vector<std::uint64_t> result;
  for (const auto& frame : frames) {
    result.push_back(frame.user ? frame.address : frame.address - kText);
  }
  return result;
}

class Orc : public testing::TestWithParam<Format> {
 protected:
  std::vector<Frame> trace(const std::vector<Row>& rows, const CpuState& cpu) {
    return backtrace(kernel.memory, cpu, {.orc = table(GetParam(), rows)});
  }
  void push(std::uint64_t at, std::initializer_list<std::uint64_t> words) {
    for (const auto word : words) {
      kernel.poke(at, word);
      at += 8;
    }
  }
  FakeKernel kernel;
};

TEST_P(Orc, FollowsCallsUpToTheEnd) {
  const std::vector<Row> rows{
      {.offset = 0x1000, .sp_offset = 24, .sp = Sp, .kind = Kind::Call},
      {.offset = 0x2000, .sp_offset = 16, .bp_offset = -16, .sp = Bp, .bp = PrevSp, .kind = Kind::Call},
      {.offset = 0x3000, .sp_offset = 8, .sp = Sp, .kind = Kind::Call},
      {.offset = 0x3010, .kind = Kind::Unknown},  // after a call that does not return
      {.offset = 0x4000, .kind = Kind::EndOfStack},
  };
  push(kStack, {1, 2, kText + 0x2010, 4, 5, 6, 0x77, kText + 0x3010, kText + 0x4005});
  const auto frames = trace(rows, kernel.cpu(kText + 0x1000, kStack, kStack + 6 * 8));
  EXPECT_EQ(offsets(frames), (std::vector<std::uint64_t>{0x1000, 0x2010, 0x3010, 0x4005}));
  EXPECT_TRUE(frames[0].after_exception);
  EXPECT_FALSE(frames[1].after_exception);
}

TEST_P(Orc, GoesThroughInterruptsToWhatTheyInterrupted) {
  const std::vector<Row> rows{
      {.offset = 0x1000, .sp_offset = 8, .sp = Sp, .kind = Kind::Call},
      {.offset = 0x2000, .sp = Sp, .kind = Kind::Regs},
      {.offset = 0x3000, .sp_offset = 16, .sp = Bp, .kind = Kind::Call},
      {.offset = 0x4000, .sp_offset = 16, .sp = Sp, .kind = Kind::PartialRegs},
  };
  const std::uint64_t other = kStack + 0x4000;
  push(kStack, {kText + 0x2004});
  push(kStack + 8 + 4 * 8, {other});                                              // pt_regs: RBP
  push(kStack + 8 + 16 * 8, {kText + 0x3000, 0x10, 0x246, other - 0x100, 0x18});  // RIP, CS, RFLAGS, RSP, SS
  push(other, {0, kText + 0x4004});
  push(other + 16 + 16, {0x40'1000, 0x33, 0x246, 0x7ffe'0000, 0x2b});
  const auto frames = trace(rows, kernel.cpu(kText + 0x1000, kStack));
  EXPECT_EQ(offsets(frames), (std::vector<std::uint64_t>{0x1000, 0x2004, 0x3000, 0x4004, 0x40'1000}));
  EXPECT_TRUE(frames[2].after_exception);
  EXPECT_TRUE(frames[4].user);
}

TEST_P(Orc, ChangesStacksWhereTheTablesSaySo) {
  const std::vector<Row> rows{
      {.offset = 0x1000, .sp_offset = 8, .sp = SpIndirect, .kind = Kind::Call},
      {.offset = 0x2000, .sp_offset = -8, .sp = BpIndirect, .kind = Kind::Call},
      {.offset = 0x3000, .kind = Kind::EndOfStack},
  };
  const std::uint64_t other = kStack + 0x4000;
  push(kStack, {other});
  push(other, {kText + 0x2004});
  push(kStack + 0x100 - 8, {other + 0x200});
  push(other + 0x200 - 8, {kText + 0x3004});
  const auto frames = trace(rows, kernel.cpu(kText + 0x1000, kStack, kStack + 0x100));
  EXPECT_EQ(offsets(frames), (std::vector<std::uint64_t>{0x1000, 0x2004, 0x3004}));
}

TEST_P(Orc, AStackThatGoesRoundIsBounded) {
  const std::vector<Row> rows{{.offset = 0x1000, .sp_offset = 0, .sp = Bp, .kind = Kind::Call}};
  push(kStack - 8, {kText + 0x1008});
  const auto frames = trace(rows, kernel.cpu(kText + 0x1000, kStack, kStack));
  EXPECT_EQ(frames.size(), 128U);
}

TEST_P(Orc, WhatItDoesNotKnowIsGuessed) {
  kernel.poke(kText + 0x5000, std::string_view{"\xe8\0\0\0\0", 5});
  kernel.poke(kText + 0x6000, std::string_view{"\xff\xd0", 2});
  push(kStack, {1, kText + 0x5005, kText + 0x5006, kText + 0x6002, 0xffff'ffff'ffff'fff8, 0x40'1000});
  const auto frames = trace({{.offset = 0x1000, .kind = Kind::Unknown}}, kernel.cpu(kText + 0x1000, kStack));
  EXPECT_EQ(offsets(frames), (std::vector<std::uint64_t>{0x1000, 0x5005, 0x6002}));
  EXPECT_EQ(frames[1].trust, Frame::Trust::Guess);
  EXPECT_EQ(format_backtrace(frames, {}).substr(20), " ? 0xffffffff9d805005\n ? 0xffffffff9d806002\n");
}

TEST_P(Orc, RegistersThatLeadNowhereEndIt) {
  constexpr auto kMax = ~std::uint64_t{0};
  const std::vector<Row> rows{{.offset = 0x1000, .sp_offset = 32767, .sp = Bp, .kind = Kind::Call},
                              {.offset = 0x2000, .sp_offset = -32768, .sp = Sp, .kind = Kind::Regs},
                              {.offset = 0x3000, .sp_offset = 5, .sp = SpIndirect, .kind = Kind::PartialRegs}};
  for (const std::uint64_t rip : {0x1000ULL, 0x2000ULL, 0x3000ULL, 0x50'0000ULL, 0xfff'ffffULL}) {
    for (const std::uint64_t place :
         {std::uint64_t{0}, kMax, kMax - 7, FakeKernel::kDirectMap + FakeKernel::kRam - 8, std::uint64_t{1} << 63U}) {
      EXPECT_GE(trace(rows, kernel.cpu(kText + rip, place, place)).size(), 1U);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Orc, testing::Values(Format::Old, Format::New),
                         [](const auto& format) { return format.param == Format::Old ? "Old" : "New"; });

TEST(Backtrace, ByFramePointersWhereThereIsNoTable) {
  const FakeKernel kernel;
  for (const std::uint64_t call : {0x2000U, 0x3000U}) {
    kernel.poke(kText + call, std::string_view{"\xe8\0\0\0\0", 5});
  }
  kernel.poke(kStack + 0x20, kStack + 0x80);
  kernel.poke(kStack + 0x28, kText + 0x2005);
  kernel.poke(kStack + 0x80, std::uint64_t{0});
  kernel.poke(kStack + 0x88, kText + 0x3005);
  const auto frames = backtrace(kernel.memory, kernel.cpu(kText + 0x1000, kStack, kStack + 0x20), {});
  EXPECT_EQ(offsets(frames), (std::vector<std::uint64_t>{0x1000, 0x2005, 0x3005}));
}

TEST(Backtrace, OfAUsersProgramIsOneFrame) {
  const FakeKernel kernel;
  auto cpu = kernel.cpu(0x40'1000, 0x7ffe'0000);
  cpu.sregs.cs.selector = 0x33;
  EXPECT_EQ(format_backtrace(backtrace(kernel.memory, cpu, {}), {}), " user code at 0x401000\n");
}

TEST(NameAddresses, WhereTheyHaveNames) {
  const auto symbols = Symbols::parse_map(
      "ffffffff81000000 T _text\nffffffff81000100 T do_idle\nffffffff81000300 T schedule\nffffffff81000400 T _etext\n");
  const auto named = name_addresses("vCPU 0 runs at 0xffffffff81000110, vCPU 1 at 0xffffffff81000300 and 0x1", symbols);
  EXPECT_EQ(named.text, "vCPU 0 runs at do_idle+0x10/0x200, vCPU 1 at schedule+0x0/0x100 and 0x1");
  EXPECT_EQ(named.first, "do_idle+0x10/0x200");
  for (const char* text : {"", "0x", "0", "at 0xg", "0x0x0x", "0x11111111111111111111"}) {
    const auto unnamed = name_addresses(text, symbols);
    EXPECT_EQ(unnamed.text, text);
    EXPECT_EQ(unnamed.first, "");
  }
  EXPECT_EQ(name_addresses("at 0xffffffff81000110", {}).text, "at 0xffffffff81000110");
}

TEST(PostMortem, SaysWhatItHasNot) {
  const FakeKernel kernel;
  const auto cpu = kernel.cpu(kText, kStack);
  const auto before = examine(kernel.memory, std::span{&cpu, 1});
  EXPECT_FALSE(before.info);
  EXPECT_EQ(before.remarks.size(), 3U);
  EXPECT_EQ(before.cpus.substr(0, 46), "vCPU 0: running, kernel mode, interrupts off\n ");
  kernel.publish();
  const auto after = examine(kernel.memory, std::span{&cpu, 1});
  EXPECT_TRUE(after.info);
  EXPECT_FALSE(after.log);
}

}  // namespace
}  // namespace martlet
