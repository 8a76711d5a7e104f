#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/gdb_client.h"
#include "vmm/debug/gdb/stub.h"

namespace martlet::gdb {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class GdbStub : public GdbClient {
 protected:
  static std::string at(std::uint64_t addr, std::string_view rest) { return fmt::format("{:x}{}", addr, rest); }
};

TEST_F(GdbStub, SaysWhatItCan) {
  const auto reply = ask("qSupported:multiprocess+;xmlRegisters=i386");
  EXPECT_THAT(reply, StartsWith("PacketSize=4000;"));
  for (const auto* feature : {"QStartNoAckMode+", "vContSupported+", "swbreak+", "hwbreak+", "qXfer:features:read+",
                              "qXfer:memory-map:read+", "binary-upload+"}) {
    EXPECT_THAT(reply, HasSubstr(feature));
  }
  EXPECT_EQ(ask("vCont?"), "vCont;c;C;s;S;t;r");
  EXPECT_EQ(ask("qAttached"), "1");
}

TEST_F(GdbStub, AnswersWhatItDoesNotKnowWithNothing) {
  for (const auto* packet : {"", "qTStatus", "vMustReplyEmpty", "QNonStop:1", "vRun;", "qCRC:0,1", "Z5,0,1", "z9,0,1",
                             "Z10,0,1", "b", "jThreads", "qXfer:threads:read::0,100", "\xff"}) {
    EXPECT_EQ(ask(packet), "") << packet;
  }
}

TEST_F(GdbStub, RefusesWhatMakesNoSense) {
  for (const auto* packet : {"m",
                             "m0",
                             "m0,",
                             "mzz,4",
                             "m11111111111111111,1",
                             "M0,1",
                             "M0,1:zz",
                             "M0,2:00",
                             "X0,5:abc",
                             "p",
                             "pzz",
                             "p1000",
                             "P0",
                             "P0=zz",
                             "P0=00",
                             "G0",
                             "Z0",
                             "Z0,",
                             "Z0,0",
                             "Z2,0,0",
                             "vCont;",
                             "vCont;q",
                             "vCont;c:99",
                             "vCont;s:",
                             "vCont;r1",
                             "H",
                             "Hx1",
                             "Hg99",
                             "T99",
                             "T",
                             "qRcmd,f",
                             "qXfer:features:read:target.xml:",
                             "qXfer:features:read:target.xml:0",
                             "qXfer:memory-map:read::zz,1",
                             "qThreadExtraInfo,",
                             "Qqemu.PhyMemMode:2",
                             "Qqemu.sstep:"}) {
    const auto reply = ask(packet);
    if (std::string_view{packet} == "vCont;") {
      EXPECT_THAT(reply, StartsWith("T05")) << "nobody runs: still stopped";
    } else if (std::string_view{packet} == "Z0" || std::string_view{packet} == "Z0,") {
      EXPECT_THAT(reply, testing::AnyOf("", StartsWith("E"))) << packet;
    } else {
      EXPECT_THAT(reply, StartsWith("E")) << packet;
    }
  }
  EXPECT_EQ(target_.resumes_, 0);
}

TEST_F(GdbStub, AcknowledgesAndSendsAgainUntilToldNotTo) {
  stub_.disconnect();
  target_.stop_by_interrupt();
  stub_.connect();
  EXPECT_EQ(raw("$qC#b4"), "+$QC1#c5");
  EXPECT_EQ(raw("-"), "$QC1#c5");
  EXPECT_EQ(raw("+"), "");
  EXPECT_EQ(raw("$qC#00"), "-");
  EXPECT_EQ(raw(frame(std::string(kMaxPacket + 1, 'q'))), "+$E07#ac");
  EXPECT_EQ(raw("$QStartNoAckMode#b0"), "+$OK#9a");
  EXPECT_EQ(raw("+$qC#00"), "$QC1#c5");
  EXPECT_EQ(raw("-"), "");
}

TEST_F(GdbStub, VcpusAreThreadsFromOne) {
  EXPECT_EQ(ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(ask("qsThreadInfo"), "l");
  EXPECT_EQ(ask("T1"), "OK");
  EXPECT_EQ(ask("T2"), "OK");
  EXPECT_EQ(ask("T3"), "E03");
  EXPECT_EQ(ask("Hg2"), "OK");
  EXPECT_EQ(ask("qC"), "QC2");
  EXPECT_EQ(ask("Hg0"), "OK");
  EXPECT_EQ(ask("Hg-1"), "OK");
  EXPECT_EQ(ask("Hc-1"), "OK");
  EXPECT_EQ(ask("Hg3"), "E03");
  target_.cpus_[1].mp_state = KVM_MP_STATE_UNINITIALIZED;
  EXPECT_EQ(*from_hex(ask("qThreadExtraInfo,1")), "vCPU 0: kernel");
  EXPECT_EQ(*from_hex(ask("qThreadExtraInfo,2")), "vCPU 1: not started");
}

TEST_F(GdbStub, ReadsAndWritesRegisters) {
  target_.cpus_[1].regs.rax = 0x1122334455667788;
  target_.cpus_[1].kernel_gs_base = 0xffff888000000000;
  ask("Hg2");
  EXPECT_EQ(ask("p0"), "8877665544332211");
  EXPECT_EQ(ask("p10"), to_hex(std::as_bytes(std::span{&target_.cpus_[1].regs.rip, 1})));
  EXPECT_EQ(ask("p11"), "02020000") << "eflags: four bytes";
  EXPECT_EQ(ask("p1a"),
            "00000000"
            "8088ffff");
  EXPECT_EQ(ask("g").size(), 2 * (17 * 8 + 7 * 4 + 9 * 8 + 8 * 10 + 8 * 4 + 16 * 16 + 4));
  EXPECT_EQ(ask("P0=0100000000000000"), "OK");
  EXPECT_TRUE(target_.written_.regs);
  EXPECT_FALSE(target_.written_.sregs);
  EXPECT_EQ(target_.cpus_[1].regs.rax, 1U);
  EXPECT_EQ(ask("p0"), "0100000000000000");
  EXPECT_EQ(ask("P12=23000000"), "E05") << "selectors are read-only";
  EXPECT_EQ(ask("P12=10000000"), "OK") << "but for what they are";
  auto all = ask("g");
  all.replace(0, 4, "ffff");
  all.replace(2 * (17 * 8 + 7 * 4 + 3 * 8), 2, "31");
  EXPECT_EQ(ask("G" + all), "OK");
  EXPECT_EQ(ask("g"), all);
  EXPECT_TRUE(target_.written_.sregs) << "CR0";
  EXPECT_EQ(target_.cpus_[1].sregs.cr0, 0x8000'0031U);
  EXPECT_FALSE(target_.written_.fpu);
  target_.cpus_[1].fpu.ftwx = 0x81;
  target_.readable_ = false;
  ask("P0=0200000000000000");
  EXPECT_EQ(ask("g"), "E05") << "KVM fails";
}

TEST_F(GdbStub, TagsAreTwoBitsEach) {
  target_.cpus_[0].fpu.ftwx = 0x81;
  EXPECT_EQ(ask("p2b"), "fc3f0000");
  EXPECT_EQ(ask("P2b=ffff0000"), "OK");
  EXPECT_EQ(target_.cpus_[0].fpu.ftwx, 0);
}

TEST_F(GdbStub, DescribesItsRegisters) {
  std::string xml;
  for (std::string part = "m"; part[0] == 'm';) {
    part = ask(fmt::format("qXfer:features:read:target.xml:{:x},400", xml.size()));
    xml += part.substr(1);
  }
  EXPECT_THAT(xml, EndsWith("</target>\n"));
  EXPECT_THAT(xml, HasSubstr("<reg name=\"fs_base\" bitsize=\"64\" type=\"int64\" regnum=\"24\"/>"));
  EXPECT_THAT(xml, HasSubstr("<reg name=\"mxcsr\" bitsize=\"32\" type=\"int\" regnum=\"65\"/>"));
  EXPECT_THAT(xml, Not(HasSubstr("ymm0h")));
  EXPECT_EQ(ask("p42"), "E05");
  stub_.disconnect();
  target_.cpus_[0].has_avx = target_.cpus_[1].has_avx = true;
  target_.stop_by_interrupt();
  stub_.connect();
  EXPECT_THAT(ask("qXfer:features:read:target.xml:0,ffffffff"), HasSubstr("ymm0h"));
  EXPECT_EQ(ask("p42").size(), 32U);
  EXPECT_EQ(ask("qXfer:features:read:target.xml:ffffffffffffffff,10"), "l");
  EXPECT_EQ(ask("qXfer:features:read:other.xml:0,10"), "");
}

TEST_F(GdbStub, ReadsAndWritesMemoryAcrossPages) {
  target_.put(FakeTarget::kDataPhys + 0xffe, "ab");
  target_.put(FakeTarget::kData2Phys, "cd");
  EXPECT_EQ(ask("m" + at(FakeTarget::kData + 0xffe, ",4")), "61626364");
  EXPECT_EQ(ask("x" + at(FakeTarget::kData + 0xffe, ",4")), "babcd");
  EXPECT_EQ(ask("M" + at(FakeTarget::kData + 0xfff, ",2:4142")), "OK");
  EXPECT_EQ(target_.byte_at(FakeTarget::kDataPhys + 0xfff), 0x41U);
  EXPECT_EQ(target_.byte_at(FakeTarget::kData2Phys), 0x42U) << "though the page is read-only";
  EXPECT_EQ(ask("X" + at(FakeTarget::kData, ",3:#}$")), "OK");
  EXPECT_EQ(ask("m" + at(FakeTarget::kData, ",3")), "237d24");
  EXPECT_EQ(ask("X" + at(FakeTarget::kData, ",0:")), "OK") << "how gdb asks whether X is known";
}

TEST_F(GdbStub, MemoryEndsWhereItIsNotMapped) {
  EXPECT_EQ(ask("m" + at(FakeTarget::kData + 0x1ffe, ",10")), "0000") << "what is there";
  EXPECT_EQ(ask("m" + at(FakeTarget::kData + 0x2000, ",1")), "E0e");
  EXPECT_EQ(ask("M" + at(FakeTarget::kData + 0x1fff, ",2:0000")), "E0e");
  EXPECT_EQ(ask("m" + at(FakeTarget::kDirect + FakeTarget::kRam, ",1")), "E0e") << "mapped, but no RAM";
  EXPECT_EQ(ask("m800000000000,1"), "E0e") << "not canonical";
  EXPECT_EQ(ask("mffffffffffffffff,ffffffffffffffff"), "E0e");
  EXPECT_EQ(ask("m" + at(kText, ",ffffffffffffffff")).size(), kMaxPacket) << "as much as a packet holds";
}

TEST_F(GdbStub, LooksIntoTheKernelFromUserMode) {
  target_.put(FakeTarget::kDataPhys, "secret");
  target_.cpus_[0].sregs.cs.selector = 0x33;
  target_.cpus_[0].sregs.cr3 = FakeTarget::kRoot | Paging::kUserTable;
  EXPECT_EQ(ask("m" + at(FakeTarget::kData, ",6")), to_hex("secret"));
  EXPECT_EQ(ask("m" + at(FakeTarget::kUserCode, ",1")), "00");
  // A page that merely lies next to the root table is no table.
  target_.tables_.put(FakeTarget::kRoot + 0x1000, 0);
  stub_.disconnect();
  target_.stop_by_interrupt();
  stub_.connect();
  EXPECT_EQ(ask("m" + at(FakeTarget::kData, ",6")), "E0e");
}

TEST_F(GdbStub, AddressesMayBePhysical) {
  EXPECT_EQ(ask("qqemu.PhyMemMode"), "0");
  EXPECT_EQ(ask("Qqemu.PhyMemMode:1"), "OK");
  EXPECT_EQ(ask("qqemu.PhyMemMode"), "1");
  target_.put(0x1234, "x");
  EXPECT_EQ(ask("m1234,1"), "78");
  EXPECT_EQ(ask("m" + at(FakeTarget::kRam - 1, ",2")), "00");
  EXPECT_EQ(ask("m" + at(FakeTarget::kRam, ",1")), "E0e");
  EXPECT_THAT(ask("qXfer:memory-map:read::0,1000"), HasSubstr("start=\"0x0\" length=\"0x600000\""));
  EXPECT_EQ(ask("Qqemu.PhyMemMode:0"), "OK");
  EXPECT_EQ(ask("m1234,1"), "E0e");
  EXPECT_THAT(ask("qXfer:memory-map:read::0,1000"), HasSubstr("start=\"0xff00000000000000\""));
}

TEST_F(GdbStub, TellsWhereTheKernelRuns) {
  EXPECT_EQ(ask("qOffsets"), "TextSeg=ffffffff9a200000");
  EXPECT_EQ(monitor("info kaslr"), "kernel text at 0xffffffff9a200000, KASLR offset 0x19200000\n");
  target_.cpus_[0].sregs.cr3 = target_.cpus_[1].sregs.cr3 = 0x100000;
  stub_.disconnect();
  target_.stop_by_interrupt();
  stub_.connect();
  EXPECT_EQ(ask("qOffsets"), "") << "nothing mapped there";
  EXPECT_EQ(monitor("info kaslr"), "no Linux kernel is mapped\n");
}

TEST_F(GdbStub, AnswersMonitorCommands) {
  EXPECT_EQ(monitor("info version"), "Martlet 1.2.3\n");
  EXPECT_EQ(monitor("info mtree"), "0-ff ram\n");
  EXPECT_THAT(monitor("help"), HasSubstr("info mtree  the memory map\n"));
  EXPECT_THAT(monitor("info registers"), HasSubstr("rip       ffffffff9a200000"));
  EXPECT_THAT(monitor("frobnicate"), HasSubstr("unknown command: frobnicate"));
  EXPECT_THAT(monitor(std::string(5000, 'x')), HasSubstr("unknown command: xxx"));
  EXPECT_EQ(monitor("reset"), "");
  EXPECT_EQ(target_.resets_, 1);
  EXPECT_EQ(monitor("quit"), "");
  EXPECT_EQ(target_.quits_, 1);
}

TEST_F(GdbStub, TellsWhyABreakpointWasRefusedAsSoonAsItMay) {
  stub_.disconnect();
  target_.stop_by_interrupt();
  stub_.connect();
  ask("qSupported:swbreak+");  // a gdb before 16 shows nothing of an error but that it is one
  EXPECT_THAT(ask("Z2,ffffffff9b000000,40"), StartsWith("E."));
  EXPECT_THAT(monitor("info version"), HasSubstr("breakpoint refused at 0xffffffff9b000000: the CPU's four"));
  EXPECT_EQ(monitor("info version"), "Martlet 1.2.3\n") << "once";
}

TEST_F(GdbStub, KillsAndRestarts) {
  EXPECT_EQ(ask("R00"), "(none)");
  EXPECT_EQ(target_.resets_, 1);
  EXPECT_EQ(ask("vKill;1"), "OK");
  EXPECT_EQ(target_.quits_, 1);
  EXPECT_TRUE(stub_.done());
}

TEST_F(GdbStub, KillsWithoutAnAnswer) {
  EXPECT_EQ(ask("k"), "(none)");
  EXPECT_EQ(target_.quits_, 1);
  EXPECT_TRUE(stub_.done());
}

TEST_F(GdbStub, NothingIsTakenFromAClientThatDoesNotListen) {
  const std::string request = frame("m" + at(kText, ",2000"));
  std::string flood;
  while (flood.size() < (64U << 10U)) {
    flood += request;
  }
  std::size_t taken = stub_.feed(flood);
  EXPECT_LT(taken, flood.size());
  EXPECT_EQ(stub_.feed(std::string_view{flood}.substr(taken)), 0U);
  EXPECT_LT(stub_.output().size(), 8 * kMaxPacket);
  for (int i = 0; i < 10000 && taken < flood.size(); ++i) {
    stub_.sent(stub_.output().size());
    taken += stub_.feed(std::string_view{flood}.substr(taken));
  }
  EXPECT_EQ(taken, flood.size()) << "but all once it does";
}

}  // namespace
}  // namespace martlet::gdb
