// What kernels say of themselves, in their own words, and the same words in somebody else's mouth.

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "vmm/debug/judge.h"

namespace martlet {
namespace {

using Kind = FindingKind;

struct Log {
  std::string file;
  Kind kind;
  std::string text;
  std::string where{};
  int cpu = -1;
};
void PrintTo(const Log& log, std::ostream* stream) { *stream << log.file; }

std::string read_log(const std::string& name) {
  std::ifstream file{CONSOLE_LOGS "/" + name + ".log"};
  return {std::istreambuf_iterator<char>{file}, {}};
}

Verdict judge(const std::string& console, const Ending& ending = {.kind = Ending::Kind::PowerOff},
              std::size_t slice = 1U << 20U) {
  Judge judge{{}};
  for (std::size_t at = 0; at < console.size(); at += slice) {
    const auto piece = std::string_view{console}.substr(at, slice);
    judge.hear(ConsoleName::Serial, std::as_bytes(std::span{piece}), std::chrono::milliseconds{3400});
  }
  return judge.conclude(ending, std::chrono::milliseconds{4000});
}

class ConsoleLog : public testing::TestWithParam<Log> {};

TEST_P(ConsoleLog, IsNamedRight) {
  const auto& log = GetParam();
  const auto console = read_log(log.file);
  ASSERT_FALSE(console.empty());
  for (const std::size_t slice : {std::size_t{1}, std::size_t{7}, console.size()}) {
    const auto verdict = judge(console, {.kind = Ending::Kind::PowerOff}, slice);
    ASSERT_EQ(verdict.findings.size(), 1) << to_json(verdict, {});
    const auto& finding = verdict.findings.front();
    EXPECT_EQ(name_of(finding.kind), name_of(log.kind));
    EXPECT_NE(finding.text.find(log.text), std::string::npos) << finding.text;
    EXPECT_EQ(finding.where, log.where);
    EXPECT_EQ(finding.cpu, log.cpu);
    const bool fails = severity_of(log.kind) != Severity::Warn;
    EXPECT_EQ(verdict.exit_code, fails ? 126 : 0);
    EXPECT_EQ(verdict.name, fails ? name_of(log.kind) : "power-off");
  }
}

/// `console` with each line changed.
template <class Change>
std::string each_line(const std::string& console, Change change) {
  std::istringstream lines{console};
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    out += change(line) + "\n";
  }
  return out;
}

TEST_P(ConsoleLog, QuotedByAProgramIsNothing) {
  const auto console = read_log(GetParam().file);
  const std::string kernel = "[  999.000000] Run /init as init process\n";
  const auto nothing = [](const std::string& text) {
    const auto verdict = judge(text);
    EXPECT_TRUE(verdict.findings.empty()) << to_json(verdict, {});
    EXPECT_EQ(verdict.exit_code, 0);
  };
  nothing(kernel + each_line(console, [](const std::string& line) { return "log: " + line; }));
  nothing(kernel + each_line(console, [](const std::string& line) { return "> " + line + " <"; }));
  nothing(kernel + each_line(console, [](const std::string& line) {
            const auto stamp = line.find("] ");
            return line.starts_with('[') && stamp != std::string::npos ? line.substr(stamp + 2) : line;
          }));
  nothing(kernel + each_line(console, [](const std::string& line) { return "[   12.345678] journal: " + line; }));
}

TEST_P(ConsoleLog, SaidTwiceCountsOnce) {
  const auto console = read_log(GetParam().file);
  if (!console.starts_with('[') || console.find("login: [") != std::string::npos) {
    return;  // without time stamps nobody can tell, and dmesg repeats no prompts
  }
  EXPECT_EQ(judge(console + console).findings.size(), 1);
}

INSTANTIATE_TEST_SUITE_P(
    Kernels, ConsoleLog,
    testing::Values(
        Log{"oops-null-5.10", Kind::Oops, "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "crash_init+0x12/0x20 [crash]", 1},
        Log{"oops-page-fault-6.12-login", Kind::Oops, "BUG: unable to handle page fault for address: ffffc90000a5c000",
            "memcpy_orig+0x1e/0x140", 0},
        Log{"gpf-6.1", Kind::Oops, "general protection fault", "__list_del_entry_valid+0x31/0x90", 0},
        Log{"gpf-6.12", Kind::Oops, "general protection fault", "__list_del_entry_valid_or_report+0x31/0x90", 3},
        Log{"bug-6.1", Kind::Bug, "kernel BUG at drivers/misc/lkdtm/bugs.c:78!", "lkdtm_BUG+0x5/0x10 [lkdtm]", 0},
        Log{"bug-no-stamps", Kind::Bug, "kernel BUG at drivers/misc/lkdtm/bugs.c:78!", "lkdtm_BUG+0x5/0x10 [lkdtm]", 2},
        Log{"invalid-opcode-5.10", Kind::Oops, "invalid opcode: 0000 [#1]", "do_ud+0x5/0x10", 0},
        Log{"bad-page-state", Kind::Bug, "BUG: Bad page state in process cat", "", 1},
        Log{"slub-poison", Kind::Bug, "BUG kmalloc-64 (Not tainted): Poison overwritten"},
        Log{"warning-5.10", Kind::Warning, "WARNING: CPU: 1 PID: 99 at drivers/misc/lkdtm/bugs.c:88",
            "lkdtm_WARNING+0x15/0x20 [lkdtm]", 1},
        Log{"kasan-6.1", Kind::Kasan, "BUG: KASAN: slab-out-of-bounds in kmalloc_oob_right",
            "kmalloc_oob_right+0x159/0x260 [test_kasan]", 0},
        Log{"kfence", Kind::Kasan, "BUG: KFENCE: use-after-free read", "test_use_after_free_read+0xb3/0x143"},
        Log{"kcsan", Kind::Kcsan, "BUG: KCSAN: data-race"},
        Log{"ubsan", Kind::Ubsan, "UBSAN: array-index-out-of-bounds in drivers/foo/bar.c:123:4", "", 0},
        Log{"lockdep-circular", Kind::Lockdep, "possible circular locking dependency detected"},
        Log{"lockdep-rcu", Kind::Lockdep, "suspicious RCU usage"},
        Log{"lockdep-wait-context", Kind::Lockdep, "Invalid wait context"},
        Log{"atomic-sleep", Kind::AtomicSleep, "sleeping function called from invalid context", "", 1},
        Log{"rcu-stall-6.1", Kind::RcuStall, "rcu_preempt detected stalls on CPUs/tasks"},
        Log{"rcu-stall-self", Kind::RcuStall, "self-detected stall on CPU", "spin_here+0x4/0x10 [spin]"},
        Log{"rcu-stall-expedited", Kind::RcuStall, "detected expedited stalls"},
        Log{"soft-lockup", Kind::SoftLockup, "soft lockup - CPU#1 stuck for 22s! [sh:77]",
            "lkdtm_SOFTLOCKUP+0x9/0x10 [lkdtm]", 1},
        Log{"hard-lockup-5.10", Kind::HardLockup, "hard LOCKUP on cpu 1", "lkdtm_HARDLOCKUP+0x6/0x10 [lkdtm]", 1},
        Log{"hard-lockup-6.12", Kind::HardLockup, "hard LOCKUP on cpu 1", "lkdtm_HARDLOCKUP+0x6/0x10 [lkdtm]", 1},
        Log{"hung-task", Kind::HungTask, "INFO: task mount:123 blocked for more than 120 seconds."},
        Log{"oom-kill", Kind::OomKill, "Out of memory: Killed process 99 (tail)"},
        Log{"stack-overflow-5.10", Kind::StackOverflow, "stack guard page was hit at",
            "recursive_loop+0x1c/0x40 [lkdtm]", 1},
        Log{"stack-overflow-6.12", Kind::StackOverflow, "TASK stack guard page was hit at",
            "recursive_loop+0x1c/0x40 [lkdtm]", 1},
        Log{"panic-sysrq-6.1", Kind::Panic, "sysrq triggered crash", "sysrq_handle_crash+0x16/0x20", 0},
        Log{"panic-no-root", Kind::Panic, "VFS: Unable to mount root fs on unknown-block(0,0)", "", 0}),
    [](const auto& log) {
      auto name = log.param.file;
      for (auto& character : name) {
        character = std::isalnum(static_cast<unsigned char>(character)) != 0 ? character : '_';
      }
      return name;
    });

TEST(Judge, OneLineSaysWhichWhereAndWhen) {
  EXPECT_EQ(describe(judge(read_log("oops-null-5.10"))),
            "oops: BUG: kernel NULL pointer dereference, address: 0000000000000000, at crash_init+0x12/0x20 [crash] "
            "(vCPU 1, 3.4 s)");
}

TEST(Judge, APanicAfterAnOopsIsToldBesideIt) {
  const auto verdict = judge(read_log("oops-null-5.10") +
                                 "[    3.402600] Kernel panic - not syncing: Fatal exception\n"
                                 "[    3.402700] ---[ end Kernel panic - not syncing: Fatal exception ]---\n",
                             {.kind = Ending::Kind::Reset});
  EXPECT_EQ(verdict.name, "oops");
  EXPECT_EQ(verdict.exit_code, 126);
  EXPECT_NE(verdict.detail.find("; then panic: Fatal exception"), std::string::npos) << verdict.detail;
  EXPECT_EQ(verdict.where, "crash_init+0x12/0x20 [crash]");
}

TEST(Judge, AWarningThatMadeThePanicIsToldBesideIt) {
  const auto verdict =
      judge(read_log("warning-5.10") + "[    4.000100] Kernel panic - not syncing: kernel: panic_on_warn set ...\n");
  EXPECT_EQ(verdict.name, "panic");
  EXPECT_NE(verdict.detail.find("; after warning: WARNING: CPU: 1"), std::string::npos) << verdict.detail;
  EXPECT_EQ(verdict.where, "lkdtm_WARNING+0x15/0x20 [lkdtm]");
}

TEST(Judge, BothConsolesSayItOnce) {
  for (const auto* name : {"bug-6.1", "bug-no-stamps"}) {
    Judge judge{{}};
    const auto console = read_log(name);
    for (const auto which : {ConsoleName::Serial, ConsoleName::Hvc}) {
      judge.hear(which, std::as_bytes(std::span{console}), {});
    }
    EXPECT_EQ(judge.conclude({}, {}).findings.size(), 1) << name;
  }
}

TEST(Judge, WarningsWithoutEndHideNoOops) {
  std::string console;
  for (int i = 0; i < 5000; ++i) {
    console += "[    4." + std::to_string(100000 + i) + "] WARNING: CPU: 1 PID: 99 at x.c:1 f+0x1/0x2\n";
  }
  const auto verdict = judge(console + read_log("bug-6.1"));
  EXPECT_EQ(verdict.name, "bug");
  EXPECT_LT(verdict.findings.size(), 200);
}

}  // namespace
}  // namespace martlet
