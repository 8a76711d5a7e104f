// Real kernels that crash, hang or run out of memory, and what Martlet says of it. The crashes are modules of
// make-guest-crashes.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "tests/boot/guest.h"

namespace martlet::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kAllMessages = "echo 8 > /proc/sys/kernel/printk\n";  // warnings and traces, for all that's quiet

// Longer than a kernel takes, in a lab on a loaded machine, from its first instruction to its first line.
constexpr const char* kSilence = "20s";

std::vector<std::string> kinds(const Ended& ended) {
  std::vector<std::string> found;
  for (const auto& finding : ended.verdict["findings"]) {
    found.push_back(finding["kind"]);
  }
  return found;
}

/// A guest whose script this is.
Guest guest(std::string script, std::vector<std::string> more = {}, std::uint32_t cpus = 1) {
  return {.cpus = cpus, .memory_mib = 192, .more = std::move(more), .script = std::move(script)};
}

class Crashes : public testing::TestWithParam<std::string> {};

TEST_P(Crashes, AreNamedOneByOneAndTheFirstIsTheVerdict) {
  const TempDir directory;
  auto crashing = guest(std::string{kAllMessages} +
                            "for what in warn null gpf bug; do insmod /crash/$what.ko.gz; done\n"
                            "tail /dev/zero\n"  // takes all memory
                            "insmod /crash/stack.ko.gz\n",
                        {"--junit", directory.file("junit.xml")});
  crashing.kernel = GetParam();
  const auto ended = boot(crashing);
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  ASSERT_TRUE(ended.verdict.is_object());
  EXPECT_EQ(ended.verdict["verdict"], "oops");
  EXPECT_EQ(ended.verdict["exit_code"], 126);
  EXPECT_THAT(ended.verdict["where"].get<std::string>(), StartsWith("crash_null+0x6/"));
  ASSERT_THAT(kinds(ended), ElementsAre("warning", "oops", "oops", "bug", "oom-kill", "stack-overflow", "panic"));
  const auto& findings = ended.verdict["findings"];
  EXPECT_THAT(findings[0]["text"].get<std::string>(), HasSubstr("crash.c:43 crash_warn+0x4/"));
  EXPECT_THAT(findings[1]["text"].get<std::string>(), HasSubstr("NULL pointer dereference, address: 0000000000000000"));
  EXPECT_THAT(findings[2]["text"].get<std::string>(), HasSubstr("non-canonical address 0x123456789abcdef0"));
  EXPECT_EQ(findings[3]["text"], "kernel BUG at crash.c:42!");
  EXPECT_THAT(findings[3]["where"].get<std::string>(), StartsWith("crash_bug+0x4/"));
  EXPECT_THAT(findings[4]["text"].get<std::string>(), HasSubstr("(tail)"));
  EXPECT_THAT(findings[5]["where"].get<std::string>(), StartsWith("crash_stack+0xb/"));
  EXPECT_THAT(read_file(directory.file("junit.xml")),
              HasSubstr("<failure message=\"oops: BUG: kernel NULL pointer dereference"));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Crashes, testing::Values("cloud-6.1", "cloud-6.12"),
                         [](const auto& kernel) { return kernel.param == "cloud-6.1" ? "Cloud61" : "Cloud612"; });

// A kernel says it again every few seconds, and there is no silence to wait for.
TEST(Lockup, SoftEndsTheRunThatFailsOnIt) {
  const auto ended = boot(guest(std::string{kAllMessages} + "echo 1 > /proc/sys/kernel/watchdog_thresh\n"
                                                            "insmod /crash/loop.ko.gz &\n"
                                                            "sleep 1000\n",
                                {"--fail-on", "oops"}, 2));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "soft-lockup");
  EXPECT_THAT(ended.verdict["where"].get<std::string>(), StartsWith("crash_loop+0x4/"));
}

TEST(Lockup, OfACpuWithInterruptsOffIsAnRcuStall) {
  const auto ended =
      boot(guest(std::string{kAllMessages} + "echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout\n"
                                             "insmod /crash/spin.ko.gz &\n"
                                             "while :; do cat /proc/self/status; done > /dev/null\n",
                 {"--fail-on", "warn"}, 2));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "rcu-stall");
}

TEST(Hang, OfAKernelThatSpinsIsToldFromItsSilence) {
  const auto ended = boot(guest("insmod /crash/spin.ko.gz\n", {"--hang-timeout", kSilence}));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "hang");
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("spins with interrupts off"));
  EXPECT_EQ(ended.verdict["vcpu"], 0);
}

// Debian's kernel remembers its own symbols.
TEST(Hang, IsNamedByTheKernelsFunction) {
  const auto ended = boot(guest("halt -f\n", {"--hang-timeout", kSilence}));
  SCOPED_TRACE(::testing::Message() << ended);
  ASSERT_EQ(ended.verdict["verdict"], "hang");
  const auto where = ended.verdict.value("where", "");
  EXPECT_THAT(where, ::testing::MatchesRegex("[a-z_]*halt[a-z_]*\\+0x[0-9a-f]+/0x[0-9a-f]+|stop_this_cpu\\+.*"));
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("halted with interrupts off at " + where));
}

// Its text, of 32 MiB, is said to be functions of 64 KiB, where the kernel was linked: KASLR is known from the guest.
TEST(Hang, IsNamedByTheFileThatIsGiven) {
  const TempDir directory;
  const auto map = directory.file("System.map");
  {
    std::ofstream lines{map};
    for (std::uint64_t at = 0xffffffff81000000; at < 0xffffffff83000000; at += 0x10000) {
      lines << fmt::format("{0:x} T place_{0:x}\n", at);
    }
  }
  const auto ended = boot(guest("halt -f\n", {"--hang-timeout", kSilence, "--vmlinux", map}));
  SCOPED_TRACE(::testing::Message() << ended);
  ASSERT_EQ(ended.verdict["verdict"], "hang");
  const auto where = ended.verdict.value("where", "");
  EXPECT_THAT(where, ::testing::MatchesRegex("place_ffffffff8[12][0-9a-f]+\\+0x[0-9a-f]+/0x10000"));
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("halted with interrupts off at " + where));
}

TEST(Hang, OfAKernelThatSleepsForEver) {
  const auto ended = boot(guest("insmod /crash/halt.ko.gz\n", {"--hang-timeout", kSilence}));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "hang");
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("halted with interrupts off"));
}

// Debian's kernel is told that it runs in a VM, but a spin lock still spins on the only CPU.
TEST(Hang, OfADeadlockIsNamedByTheLock) {
  const auto ended = boot(guest("insmod /crash/lock.ko.gz\n", {"--hang-timeout", kSilence}));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "hang");
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("spins with interrupts off"));
  EXPECT_THAT(ended.verdict.value("where", ""), HasSubstr("spin_lock"));
}

TEST(Lockup, OfTasksThatWaitForThemselvesIsAHungTask) {
  const auto ended = boot(guest(std::string{kAllMessages} + "echo 1 > /proc/sys/kernel/hung_task_timeout_secs\n"
                                                            "insmod /crash/mutex.ko.gz &\n"
                                                            "sleep 1000\n",
                                {"--fail-on", "warn"}));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "hung-task");
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("INFO: task insmod:"));
}

TEST(AtomicSleep, IsNamed) {
  const auto ended =
      boot(guest(std::string{kAllMessages} + "insmod /crash/atomic.ko.gz\nsleep 1000\n", {"--fail-on", "oops"}));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "atomic-sleep");
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr("scheduling while atomic: insmod/"));
}

TEST(TripleFault, IsNamed) {
  const auto ended = boot(guest("insmod /crash/triple.ko.gz\n"));
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, 126);
  EXPECT_EQ(ended.verdict["verdict"], "triple-fault");
  EXPECT_EQ(ended.verdict["vcpu"], 0);
}

// The kernel says, by fw_cfg, where its VMCOREINFO is.
TEST(DumpOfAKernel, HasItsLogAndBacktracesWithoutItsHelp) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  RunningGuest running{
      guest("modprobe qemu_fw_cfg\n"
            "format=$(od -An -tx1 -j2 -N1 /sys/firmware/qemu_fw_cfg/by_name/etc/vmcoreinfo/raw)\n"
            "[ $format = 01 ] || exit 3\n"
            "echo 'a line of the log' > /dev/kmsg\n"
            "echo READY\n"
            "sleep 1000\n",
            {}, 2)};
  auto& process = running.process();
  ASSERT_TRUE(process.wait_for("READY")) << running.wait();
  const auto dumped = run({.command = {MARTLET_PROGRAM, "dump", std::to_string(process.pid()), "-o", bundle}});
  ASSERT_EQ(dumped.exit_code, 0) << dumped;
  EXPECT_EQ(dumped.out, bundle + "\n");
  EXPECT_THAT(read_file(bundle + "/dmesg.txt"), HasSubstr("a line of the log"));
  EXPECT_THAT(read_file(bundle + "/console.log"), HasSubstr("READY"));
  EXPECT_THAT(read_file(bundle + "/cpus.txt"), HasSubstr("vCPU 1: "));
  EXPECT_THAT(read_file(bundle + "/cpus.txt"), HasSubstr("do_idle+0x"));
  EXPECT_THAT(read_file(bundle + "/README.txt"), HasSubstr("Guest: 6.1."));
  // Another program finds the same in the vmcore.
  const auto theirs = run({.command = {"makedumpfile", "--dump-dmesg", bundle + "/vmcore", directory.file("dmesg")}});
  ASSERT_EQ(theirs.exit_code, 0) << theirs;
  EXPECT_EQ(read_file(directory.file("dmesg")), read_file(bundle + "/dmesg.txt"));
}

}  // namespace
}  // namespace martlet::test
