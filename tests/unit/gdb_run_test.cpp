// What runs, what stops it, and what gdb hears of it.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/gdb_client.h"

namespace martlet::gdb {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr std::uint64_t kBreak = FakeTarget::kText + 0x100;
constexpr std::uint64_t kBreakPhys = FakeTarget::kTextPhys + 0x100;
constexpr unsigned kInt3 = 0xcc;
constexpr unsigned kNop = 0x90;
constexpr std::uint64_t kStep = 0x4000;  // DR6.BS

class GdbRun : public GdbClient {
 protected:
  void SetUp() override {
    target_.put(kBreakPhys, "\x90");
    GdbClient::SetUp();
  }
  static std::string at(std::string_view packet, std::uint64_t addr, std::string_view rest) {
    return fmt::format("{}{:x}{}", packet, addr, rest);
  }
  /// vCPU `cpu` meets the int3 or debug register at `pc`.
  void meet_int3(std::size_t cpu, std::uint64_t pc) {
    target_.cpus_[cpu].regs.rip = pc;
    target_.stop({FakeTarget::debug_event(cpu, 3, pc, 0)});
  }
  void meet(std::size_t cpu, std::uint64_t pc, std::uint64_t dr6) {
    target_.cpus_[cpu].regs.rip = pc;
    target_.stop({FakeTarget::debug_event(cpu, 1, pc, dr6)});
  }
  void go() { EXPECT_EQ(ask("vCont;c"), "(none)"); }
};

TEST_F(GdbRun, AttachingStopsTheMachine) {
  EXPECT_EQ(ask("D"), "OK");
  EXPECT_TRUE(stub_.done());
  stub_.disconnect();
  EXPECT_FALSE(target_.resting_);
  EXPECT_EQ(target_.listener_, nullptr);
  stub_.connect();
  EXPECT_TRUE(target_.interrupted_);
  EXPECT_EQ(raw(frame("?")), "+") << "held until it has stopped";
  target_.stop_by_interrupt();
  EXPECT_EQ(output(), frame("T02thread:1;"));
}

TEST_F(GdbRun, AMachineThatRestsAlreadyIsThereAtOnce) {
  EXPECT_EQ(ask("?"), "T05thread:1;");
  EXPECT_FALSE(target_.interrupted_);
}

TEST_F(GdbRun, RunsAndStepsEachAsAsked) {
  go();
  EXPECT_TRUE(target_.orders_[0].run && target_.orders_[1].run);
  EXPECT_EQ(target_.orders_[0].debug, GuestDebug{});
  target_.stop_by_interrupt();
  EXPECT_EQ(news(), "T02thread:1;");
  EXPECT_EQ(ask("vCont;s:2"), "(none)");
  EXPECT_FALSE(target_.orders_[0].run);
  EXPECT_TRUE(target_.orders_[1].run);
  EXPECT_TRUE(target_.orders_[1].debug.single_step);
  EXPECT_TRUE(target_.orders_[1].debug.block_interrupts);
  target_.stop_by_step(1, kText + 1);
  EXPECT_EQ(news(), "T05thread:2;");
  EXPECT_EQ(ask("qC"), "QC2") << "what stopped is what is looked at";
  EXPECT_EQ(ask("vCont;s:1;c"), "(none)");
  EXPECT_TRUE(target_.orders_[0].debug.single_step);
  EXPECT_TRUE(target_.orders_[1].run);
  EXPECT_FALSE(target_.orders_[1].debug.single_step);
  target_.stop_by_step(0, kText + 2);
  EXPECT_EQ(news(), "T05thread:1;");
  EXPECT_EQ(ask("vCont;C05;t:2"), "(none)") << "the first that fits counts";
  EXPECT_TRUE(target_.orders_[1].run);
}

TEST_F(GdbRun, InterruptsMayBeLetThroughWhileStepping) {
  EXPECT_EQ(ask("qqemu.sstepbits"), "ENABLE=1,NOIRQ=2,NOTIMER=4");
  EXPECT_EQ(ask("Qqemu.sstep:1"), "OK");
  ask("vCont;s:1");
  EXPECT_FALSE(target_.orders_[0].debug.block_interrupts);
}

TEST_F(GdbRun, StepsThroughARange) {
  EXPECT_EQ(ask(fmt::format("vCont;r{:x},{:x}:1", kText, kText + 8)), "(none)");
  target_.stop_by_step(0, kText + 3);
  EXPECT_EQ(news(), "(none)");
  EXPECT_EQ(target_.resumes_, 2);
  EXPECT_TRUE(target_.orders_[0].debug.single_step);
  target_.stop_by_step(0, kText + 8);
  EXPECT_EQ(news(), "T05thread:1;");
}

TEST_F(GdbRun, ControlCStopsIt) {
  go();
  EXPECT_EQ(raw("\x03"), "");
  EXPECT_TRUE(target_.interrupted_);
  target_.stop_by_interrupt();
  EXPECT_EQ(news(), "T02thread:1;");
  EXPECT_EQ(raw("\x03"), "") << "at rest it means nothing";
  EXPECT_FALSE(target_.interrupted_);
  // A breakpoint that comes first is told, and the ^C does not stop what is let go after it.
  ask(at("Z0,", kBreak, ",1"));
  go();
  raw("\x03");
  meet_int3(1, kBreak);
  EXPECT_EQ(news(), "T05swbreak:;thread:2;");
  ask(at("z0,", kBreak, ",1"));
  go();
  meet_int3(0, kText + 0x200);
  EXPECT_EQ(news(), "(none)") << "the guest's own";
}

TEST_F(GdbRun, ASoftwareBreakpointIsAnInt3ThatNobodySees) {
  EXPECT_EQ(ask(at("Z0,", kBreak, ",1")), "OK");
  EXPECT_EQ(ask(at("Z0,", kBreak, ",1")), "OK") << "again: nothing more";
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
  EXPECT_EQ(ask(at("m", kBreak - 1, ",3")), "009000");
  EXPECT_EQ(ask(at("m", FakeTarget::kDirect + kBreakPhys, ",1")), "90") << "nor under another address";
  go();
  EXPECT_TRUE(target_.orders_[0].debug.int3_exits && target_.orders_[1].debug.int3_exits);
  meet_int3(1, kBreak);
  EXPECT_EQ(news(), "T05swbreak:;thread:2;");
  EXPECT_EQ(ask(at("M", kBreak, ",1:f4")), "OK");
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3) << "a write goes underneath";
  EXPECT_EQ(ask(at("z0,", kBreak, ",1")), "OK");
  EXPECT_EQ(target_.byte_at(kBreakPhys), 0xf4U);
  EXPECT_EQ(ask(at("z0,", kBreak, ",1")), "OK");
  go();
  EXPECT_FALSE(target_.orders_[0].debug.int3_exits);
}

TEST_F(GdbRun, WhatTheGuestWroteOverABreakpointStays) {
  ask(at("Z0,", kBreak, ",1"));
  target_.put(kBreakPhys, "\xe8");
  EXPECT_EQ(ask(at("m", kBreak, ",1")), "e8");
  ask(at("z0,", kBreak, ",1"));
  EXPECT_EQ(target_.byte_at(kBreakPhys), 0xe8U);
}

TEST_F(GdbRun, StepsOverTheBreakpointThatWasTold) {
  ask(at("Z0,", kBreak, ",1"));
  go();
  meet_int3(1, kBreak);
  news();
  go();
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop) << "lifted";
  EXPECT_FALSE(target_.orders_[0].run) << "nobody else may run through it meanwhile";
  EXPECT_TRUE(target_.orders_[1].debug.single_step && target_.orders_[1].debug.block_interrupts);
  target_.stop_by_step(1, kBreak + 1);
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
  EXPECT_TRUE(target_.orders_[0].run && target_.orders_[1].run);
  EXPECT_FALSE(target_.orders_[1].debug.single_step);
  EXPECT_EQ(news(), "(none)");
  meet_int3(1, kBreak);
  EXPECT_EQ(news(), "T05swbreak:;thread:2;") << "next time round";
  // A step from there is that step.
  ask("vCont;s:2;c");
  target_.stop_by_step(1, kBreak + 1);
  EXPECT_EQ(news(), "T05thread:2;");
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
}

TEST_F(GdbRun, AStepOverThatIsInterruptedIsMadeUpFor) {
  ask(at("Z0,", kBreak, ",1"));
  go();
  meet_int3(0, kBreak);
  news();
  go();
  raw("\x03");
  target_.stop_by_interrupt();
  EXPECT_EQ(news(), "T02thread:1;");
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
  go();
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop) << "steps over it again";
}

TEST_F(GdbRun, ABreakpointThatWasNotToldStopsAgain) {
  ask(at("Z0,", kBreak, ",1"));
  go();
  target_.cpus_[0].regs.rip = target_.cpus_[1].regs.rip = kBreak;
  target_.stop({FakeTarget::debug_event(0, 3, kBreak, 0), FakeTarget::debug_event(1, 3, kBreak, 0)});
  const auto first = news();
  EXPECT_THAT(first, HasSubstr("swbreak"));
  // gdb lifts it itself, steps the one, and puts it back.
  ask(at("z0,", kBreak, ",1"));
  ask("vCont;s:1");
  target_.stop_by_step(0, kBreak + 1);
  news();
  ask(at("Z0,", kBreak, ",1"));
  go();
  EXPECT_TRUE(target_.orders_[1].run) << "no step over for the other: it meets the int3";
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
}

TEST_F(GdbRun, TheGuestsOwnInt3GoesToTheGuest) {
  ask(at("Z0,", kBreak, ",1"));
  target_.put(FakeTarget::kTextPhys + 0x300, "\xcc");
  go();
  meet_int3(1, kText + 0x300);
  EXPECT_EQ(news(), "(none)");
  EXPECT_EQ(target_.resumes_, 2);
  EXPECT_EQ(target_.orders_[1].debug.inject, Injection::Breakpoint);
  EXPECT_EQ(target_.orders_[0].debug.inject, Injection::None);
  target_.stop_by_interrupt();
  news();
  go();
  EXPECT_EQ(target_.orders_[1].debug.inject, Injection::None) << "once";
}

TEST_F(GdbRun, ABreakpointThatIsGoneIsNotTheGuests) {
  ask(at("Z0,", kBreak, ",1"));
  ask(at("Z0,", kBreak + 0x100, ",1"));
  go();
  raw("\x03");
  target_.stop_by_interrupt();
  news();
  ask(at("z0,", kBreak, ",1"));
  go();
  meet_int3(0, kBreak);
  EXPECT_EQ(target_.orders_[0].debug.inject, Injection::None);
  EXPECT_TRUE(target_.orders_[0].run);
}

TEST_F(GdbRun, OtherAddressesOfABreakpointsMemoryArePassed) {
  target_.tables_.map(FakeTarget::kText + 0x20'0000, FakeTarget::kTextPhys, 21);
  ask(at("Z0,", kBreak, ",1"));
  go();
  meet_int3(0, kBreak + 0x20'0000);
  EXPECT_EQ(news(), "(none)");
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop);
  EXPECT_TRUE(target_.orders_[0].debug.single_step);
  EXPECT_EQ(target_.orders_[0].debug.inject, Injection::None);
  target_.stop_by_step(0, kBreak + 0x20'0001);
  EXPECT_EQ(target_.byte_at(kBreakPhys), kInt3);
}

// One byte of memory may be at any number of addresses.
TEST_F(GdbRun, SoftwareBreakpointsAreNotWithoutEnd) {
  constexpr std::size_t kMost = 4096;
  for (std::size_t i = 0; i < kMost; ++i) {
    ASSERT_EQ(ask(at("Z0,", kText + i, ",1")), "OK");
  }
  EXPECT_EQ(ask(at("Z0,", kText + 7, ",1")), "OK") << "it is there";
  EXPECT_EQ(ask(at("Z0,", kText + kMost, ",1")),
            fmt::format("E.{:#x}: 4096 software breakpoints are there already", kText + kMost));
  EXPECT_EQ(ask(at("z0,", kText + 7, ",1")), "OK");
  EXPECT_EQ(ask(at("Z0,", kText + kMost, ",1")), "OK");
}

TEST_F(GdbRun, UnmappedTextGetsADebugRegister) {
  EXPECT_EQ(ask(at("Z0,", FakeTarget::kUnmapped, ",1")), "OK");
  go();
  for (const auto& order : target_.orders_) {
    EXPECT_EQ(order.debug.dr[0], FakeTarget::kUnmapped);
    EXPECT_EQ(order.debug.dr7, 0x602U);
    EXPECT_FALSE(order.debug.int3_exits);
  }
  meet(1, FakeTarget::kUnmapped, 1);
  EXPECT_EQ(news(), "T05swbreak:;thread:2;") << "gdb looks for the kind it asked for";
  go();
  EXPECT_EQ(target_.orders_[1].debug.dr7, 0U) << "steps over it";
  target_.stop_by_step(1, FakeTarget::kUnmapped + 1);
  EXPECT_EQ(target_.orders_[1].debug.dr7, 0x602U);
}

TEST_F(GdbRun, WithoutInt3ExitsEveryBreakpointIsADebugRegister) {
  target_.int3_exits_ = false;
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(ask(at("Z0,", kBreak + i, ",1")), "OK");
  }
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop);
  EXPECT_EQ(
      ask(at("Z0,", kBreak + 4, ",1")),
      fmt::format("E.{:#x}: this host's KVM does not report int3, and the CPU's four debug registers, which would "
                  "do, are taken",
                  kBreak + 4));
  EXPECT_THAT(ask(at("Z1,", kBreak + 4, ",1")), HasSubstr("four debug registers are not enough"));
  EXPECT_EQ(ask(at("z0,", kBreak + 2, ",1")), "OK");
  EXPECT_EQ(ask(at("Z1,", kBreak + 4, ",1")), "OK");
  go();
  EXPECT_EQ(target_.orders_[1].debug.dr, (std::array{kBreak, kBreak + 1, kBreak + 4, kBreak + 3}));
  meet(0, kBreak + 4, 0xffff0ff4);
  EXPECT_EQ(news(), "T05hwbreak:;thread:1;");
}

TEST_F(GdbRun, WatchpointsTellWhatTheyWatch) {
  EXPECT_EQ(ask("Z2,ffffffff9b000008,8"), "OK");
  EXPECT_EQ(ask("Z3,ffffffff9b000010,2"), "OK");
  EXPECT_EQ(ask("Z4,ffffffff9b000014,1"), "OK");
  go();
  EXPECT_EQ(target_.orders_[1].debug.dr7, 0x62aU | 0b1001U << 16U | 0b0111U << 20U | 0b0011U << 24U);
  EXPECT_EQ(target_.orders_[0].debug, target_.orders_[1].debug) << "on every vCPU";
  meet(0, kText, 1);
  EXPECT_EQ(news(), "T05watch:ffffffff9b000008;thread:1;");
  go();
  EXPECT_TRUE(target_.orders_[1].run) << "what has happened need not be stepped over";
  meet(1, kText, 2);
  EXPECT_EQ(news(), "T05rwatch:ffffffff9b000010;thread:2;");
  go();
  meet(1, kText, 4 | kStep);
  EXPECT_EQ(news(), "T05awatch:ffffffff9b000014;thread:2;");
  EXPECT_EQ(ask("z3,ffffffff9b000010,2"), "OK");
  EXPECT_THAT(ask("Z2,ffffffff9b000021,8"), StartsWith("E.")) << "1+2+4+1 bytes: four registers, two are free";
  EXPECT_EQ(ask("Z2,ffffffff9b000020,10"), "OK") << "two of eight bytes";
  go();
  meet(0, kText, 8);
  EXPECT_EQ(news(), "T05watch:ffffffff9b000020;thread:1;");
}

TEST_F(GdbRun, TwoWatchpointsAtOnceAreToldOneAfterTheOther) {
  ask("Z2,ffffffff9b000008,8");
  go();
  target_.stop({FakeTarget::debug_event(0, 1, kText, 1), FakeTarget::debug_event(1, 1, kText, 1)});
  EXPECT_EQ(news(), "T05watch:ffffffff9b000008;thread:1;");
  const int resumes = target_.resumes_;
  EXPECT_EQ(ask("vCont;c"), "T05watch:ffffffff9b000008;thread:2;");
  EXPECT_EQ(target_.resumes_, resumes) << "without running";
  go();
  EXPECT_EQ(target_.resumes_, resumes + 1);
}

TEST_F(GdbRun, TheGuestsOwnDebuggingGoesToTheGuest) {
  ask("Z2,ffffffff9b000008,8");
  go();
  meet(1, kText + 4, kStep);  // its own single step, seen because debug registers are ours
  EXPECT_EQ(news(), "(none)");
  EXPECT_EQ(target_.orders_[1].debug.inject, Injection::Debug);
}

TEST_F(GdbRun, FaultsCanBeLookedAt) {
  go();
  target_.stop({{.kind = StopEvent::Kind::Fault, .cpu = 1, .detail = "triple fault on vCPU 1"}});
  const auto packets = payloads(output());
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[0], fmt::format("O{}", to_hex("triple fault on vCPU 1\n")));
  EXPECT_EQ(packets[1], "T06thread:2;");
  EXPECT_NE(ask("g"), "E05");
}

TEST_F(GdbRun, TellsWhenTheMachineEnds) {
  go();
  target_.end(7);
  EXPECT_EQ(news(), "W07");
  EXPECT_EQ(ask("?"), "W07");
  EXPECT_EQ(ask("g"), "E05");
  EXPECT_EQ(ask("vCont;c"), "W07");
}

TEST_F(GdbRun, DetachingTakesBreakpointsAway) {
  ask(at("Z0,", kBreak, ",1"));
  ask("Z2,ffffffff9b000008,8");
  EXPECT_EQ(ask("D;1"), "OK");
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop);
  EXPECT_EQ(target_.orders_[0].debug, GuestDebug{});
  EXPECT_FALSE(target_.resting_);
}

TEST_F(GdbRun, AClientThatVanishesTakesItsBreakpointsWithIt) {
  ask(at("Z0,", kBreak, ",1"));
  ask("Qqemu.PhyMemMode:1");
  go();
  stub_.disconnect();
  EXPECT_TRUE(target_.interrupted_) << "they can only be lifted at rest";
  target_.stop({FakeTarget::debug_event(0, 3, kBreak, 0), FakeTarget::debug_event(1, 3, kText + 0x300, 0)});
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop);
  EXPECT_FALSE(target_.resting_);
  EXPECT_EQ(target_.orders_[0].debug, GuestDebug{});
  target_.put(FakeTarget::kTextPhys + 0x300, "\xcc");
  stub_.connect();
  target_.stop_by_interrupt();
  EXPECT_EQ(ask("?"), "T02thread:1;");
  EXPECT_EQ(ask("qqemu.PhyMemMode"), "0");
  // And one that is back before the machine has stopped finds it clean, too.
  ask(at("Z0,", kBreak, ",1"));
  go();
  stub_.disconnect();
  stub_.connect();
  EXPECT_EQ(raw(frame("?")), "+");
  target_.put(FakeTarget::kTextPhys + 0x300, "\xcc");
  meet_int3(1, kText + 0x300);
  EXPECT_EQ(output(), frame("T02thread:1;"));
  EXPECT_TRUE(target_.resting_);
  EXPECT_EQ(target_.byte_at(kBreakPhys), kNop);
  go();
  EXPECT_EQ(target_.orders_[1].debug.inject, Injection::Breakpoint) << "the guest's own is not lost";
}

TEST_F(GdbRun, PacketsWhileItRunsWaitAndAreBounded) {
  go();
  std::string flood;
  for (int i = 0; i < 100; ++i) {
    flood += frame("qC");
  }
  const auto taken = stub_.feed(flood);
  EXPECT_LT(taken, flood.size());
  EXPECT_EQ(output(), "");
  target_.stop_by_interrupt();
  EXPECT_EQ(stub_.feed(std::string_view{flood}.substr(taken)), flood.size() - taken);
  EXPECT_EQ(payloads(output()).size(), 101U);
}

}  // namespace
}  // namespace martlet::gdb
