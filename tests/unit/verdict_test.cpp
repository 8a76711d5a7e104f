#include "vmm/debug/verdict.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "vmm/base/error.h"
#include "vmm/debug/console_lines.h"
#include "vmm/debug/judge.h"

namespace martlet {
namespace {

using Ms = std::chrono::milliseconds;
using Kind = Ending::Kind;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text.data(), text.size()}); }

std::vector<std::string> lines_of(std::string_view output, std::size_t slice = 1000) {
  ConsoleLines lines;
  std::vector<std::string> all;
  for (std::size_t at = 0; at < output.size(); at += slice) {
    lines.feed(bytes(output.substr(at, slice)), [&](std::string_view line) { all.emplace_back(line); });
  }
  all.emplace_back(lines.unfinished());
  return all;
}

TEST(Verdict, ExitCodesAreTheDocumentedOnes) {
  for (const auto& [kind, code] : {std::pair{Kind::PowerOff, 0},
                                   {Kind::Reset, 0},
                                   {Kind::Quit, 0},
                                   {Kind::Timeout, 124},
                                   {Kind::HostError, 125},
                                   {Kind::Panic, 126},
                                   {Kind::Hang, 126},
                                   {Kind::TripleFault, 126},
                                   {Kind::KvmError, 126}}) {
    EXPECT_EQ(verdict_of({.kind = kind}, {}).exit_code, code) << verdict_of({.kind = kind}, {}).name;
  }
  EXPECT_EQ(verdict_of({.kind = Kind::GuestExit, .code = 37}, {}).exit_code, 37);
  EXPECT_EQ(verdict_of({.kind = Kind::Signal, .code = 15}, {}).exit_code, 143);
}

TEST(Verdict, BisectKnowsGoodBadAndSkipOnly) {
  for (int code = 0; code < 256; ++code) {
    const auto bisect = bisect_code(verdict_of({.kind = Kind::GuestExit, .code = code}, {}));
    EXPECT_EQ(bisect, code <= 125 ? code : 1);
  }
  EXPECT_EQ(bisect_code(verdict_of({.kind = Kind::Signal, .code = 2}, {})), 125);
  EXPECT_EQ(bisect_code(verdict_of({.kind = Kind::HostError}, {})), 125);
  EXPECT_EQ(bisect_code(verdict_of({.kind = Kind::TripleFault}, {})), 1);
}

TEST(Verdict, JsonHoldsAnyDetail) {
  const auto json = nlohmann::json::parse(to_json(
      verdict_of({.kind = Kind::Panic, .vcpu = 1, .detail = "quote \" and \xff\xfe"}, Ms{1234}), {"martlet", "\xff"}));
  EXPECT_EQ(json["verdict"], "panic");
  EXPECT_EQ(json["exit_code"], 126);
  EXPECT_EQ(json["vcpu"], 1);
  EXPECT_EQ(json["elapsed_ms"], 1234);
  EXPECT_EQ(json["command"].size(), 2);
}

TEST(ConsoleLines, AreWhatAReaderSees) {
  using Lines = std::vector<std::string>;
  for (std::size_t slice = 1; slice < 20; ++slice) {
    EXPECT_EQ(lines_of("plain\r\n\x1b[1;32mgreen\x1b[0m and\x1b(B \x1b]0;title\x07more\r\n10%\r20%\r\ntwo\r\r\nlogin: ",
                       slice),
              (Lines{"plain", "green and more", "20%", "two", "login: "}));
  }
  EXPECT_EQ(lines_of(std::string_view{"a\0b\ac\n", 6}), (Lines{"abc", ""}));
}

TEST(ConsoleLines, ASequenceWithoutEndHidesOneLineOnly) {
  EXPECT_EQ(lines_of("\x1b]0;no end\nseen\n\x1b[12;\nseen\n\x1bPno end\nseen"),
            (std::vector<std::string>{"", "seen", "", "seen", "", "seen"}));
}

TEST(ConsoleLines, EndlessLinesAreCutNotKept) {
  const auto lines = lines_of(std::string(1U << 20U, 'x') + "\nafter");
  EXPECT_EQ(lines.front().size(), ConsoleLines::kLongest);
  EXPECT_EQ(lines.back(), "after");
}

class Patterns : public testing::Test {
 protected:
  void hear(Judge& judge, std::string_view output, ConsoleName console = ConsoleName::Serial) {
    judge.hear(console, bytes(output), Ms{100});
  }
};

TEST_F(Patterns, APromptIsExpectedOutput) {
  Judge judge{{.expect = {"login: $"}}};
  hear(judge, "Debian GNU/Linux\r\ngue");
  hear(judge, "st log");
  EXPECT_FALSE(judge.ending());
  hear(judge, "in\x1b[0m: ");
  ASSERT_TRUE(judge.ending());
  const auto verdict = judge.conclude(*judge.ending(), Ms{200});
  EXPECT_EQ(verdict.name, "expected-output");
  EXPECT_EQ(verdict.exit_code, 0);
  EXPECT_EQ(verdict.patterns.at(0).seen, "guest login: ");
}

TEST_F(Patterns, AllThatIsExpectedMustCome) {
  Judge judge{{.expect = {"one", "t.o"}}};
  hear(judge, "two\n", ConsoleName::Hvc);
  EXPECT_FALSE(judge.ending());
  hear(judge, "one\n");
  EXPECT_TRUE(judge.ending());
}

TEST_F(Patterns, WithACommandToComeExpectedOutputEndsNothing) {
  for (const int status : {0, 3}) {
    Judge judge{{.expect = {"Run /"}, .awaits_end = true}};
    hear(judge, "Run /.martlet/init as init process\n");
    EXPECT_FALSE(judge.ending());
    EXPECT_EQ(judge.conclude({.kind = Kind::GuestExit, .code = status}, Ms{200}).exit_code, status);
  }
}

TEST_F(Patterns, WhatWasExpectedAndIsMissingFails) {
  const auto without = [](const Ending& ending) { return Judge{{.expect = {"login:"}}}.conclude(ending, Ms{200}); };
  EXPECT_EQ(without({.kind = Kind::PowerOff}).name, "missing-output");
  EXPECT_EQ(without({.kind = Kind::PowerOff}).exit_code, 1);
  EXPECT_EQ(without({.kind = Kind::GuestExit, .code = 0}).exit_code, 1);
  EXPECT_EQ(without({.kind = Kind::GuestExit, .code = 9}).exit_code, 9);
  EXPECT_EQ(without({.kind = Kind::Timeout}).exit_code, 124);
  EXPECT_NE(without({.kind = Kind::Timeout}).detail.find("'login:'"), std::string::npos);
  EXPECT_EQ(without({.kind = Kind::TripleFault}).exit_code, 126);
  EXPECT_EQ(without({.kind = Kind::HostError}).exit_code, 125);
}

TEST_F(Patterns, ForbiddenOutputEndsIt) {
  Judge judge{{.expect = {"login:"}, .forbid = {"^FAIL", "(?i)segfault"}}};
  hear(judge, "no FAIL here\nFAI");
  EXPECT_FALSE(judge.ending());
  hear(judge, "LED\n");
  ASSERT_TRUE(judge.ending());
  const auto verdict = judge.conclude(*judge.ending(), Ms{200});
  EXPECT_EQ(verdict.name, "forbidden-output");
  EXPECT_EQ(verdict.exit_code, 1);
  EXPECT_EQ(verdict.detail, "'^FAIL' matched: FAILED");
}

TEST_F(Patterns, WhatIsNoPatternIsTheHostsFault) {
  EXPECT_THROW(Judge{{.expect = {"("}}}, HostError);
  EXPECT_THROW(Judge{{.forbid = {"(a)\\1"}}}, HostError);
}

TEST_F(Patterns, HostileOutputTakesLinearTime) {
  Judge judge{{.expect = {"(a*)*b$", "(x+x+)+y"}}};
  for (int i = 0; i < 200; ++i) {
    hear(judge, std::string(5000, i % 2 == 0 ? 'a' : 'x'));
    hear(judge, "\n");
  }
  EXPECT_FALSE(judge.ending());
}

TEST(Judge, FailOnSaysFromWhereARunHasFailed) {
  const std::string_view console =
      "[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n"
      "[    1.000100] ---[ end trace 0 ]---\n"
      "[    2.000000] BUG: Bad page state in process x  pfn:1\n";
  for (const auto& [fail_on, name] :
       {std::pair{Severity::Warn, "warning"}, {Severity::Oops, "bug"}, {Severity::Panic, "power-off"}}) {
    Judge judge{{.fail_on = fail_on}};
    judge.hear(ConsoleName::Serial, bytes(console), Ms{1});
    EXPECT_EQ(judge.conclude({.kind = Kind::PowerOff}, {}).name, name);
  }
}

const std::vector<LogRecord> kPanicLog{
    {.time_ns = 1'000'000'000, .text = "Linux version 6.1.0"},
    {.time_ns = 2'000'000'000, .level = 4, .text = "sysrq: Trigger a crash"},
    {.time_ns = 2'000'001'000, .level = 0, .text = "Kernel panic - not syncing: sysrq triggered crash"},
    {.time_ns = 2'000'002'000, .level = 4, .text = "CPU: 1 PID: 77 Comm: sh Not tainted 6.1.0\nHardware name: x"},
    {.time_ns = 2'000'003'000, .level = 4, .text = "Call Trace:"},
    {.time_ns = 2'000'004'000, .level = 4, .text = " panic+0x118/0x2ed"},
    {.time_ns = 2'000'005'000, .level = 4, .text = " sysrq_handle_crash+0x1a/0x20"}};

TEST(Judge, APanicThatNoConsoleHeardIsInTheLog) {
  for (const auto kind : {Kind::Reset, Kind::TripleFault, Kind::Panic}) {
    Judge judge{{}};
    EXPECT_FALSE(judge.knows_why());
    judge.hear_log(kPanicLog, Ms{2100});
    const auto verdict = judge.conclude({.kind = kind}, Ms{2200});
    EXPECT_EQ(verdict.name, "panic");
    EXPECT_EQ(verdict.exit_code, 126);
    EXPECT_EQ(verdict.where, "sysrq_handle_crash+0x1a/0x20");
    EXPECT_EQ(verdict.vcpu, 1);
    ASSERT_EQ(verdict.findings.size(), 1);
    EXPECT_EQ(name_of(verdict.findings[0].console), "dmesg");
  }
}

TEST(Judge, WhatAConsoleHeardTheLogSaysOnceMore) {
  Judge judge{{}};
  judge.hear(ConsoleName::Serial, bytes("[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n"), Ms{1});
  EXPECT_FALSE(judge.knows_why());
  judge.hear_log(std::vector<LogRecord>{{.time_ns = 1'000'000'000,
                                         .text = "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 "
                                                 "f+0x1/0x2"}},
                 Ms{2});
  EXPECT_EQ(judge.conclude({.kind = Kind::Reset}, Ms{3}).findings.size(), 1);
}

TEST(Judge, KnowsOfARebootAndOfAFailure) {
  Judge rebooted{{}};
  rebooted.hear(ConsoleName::Serial, bytes("[    1.000000] reboot: Restarting system\n"), Ms{1});
  EXPECT_TRUE(rebooted.knows_why());
  Judge failed{{}};
  failed.hear(ConsoleName::Hvc, bytes("Kernel panic - not syncing: me\n"), Ms{1});
  EXPECT_TRUE(failed.knows_why());
}

TEST(Judge, AnEndWithoutABeginningIsNoPanic) {
  Judge judge{{}};
  judge.hear(ConsoleName::Serial, bytes("---[ end Kernel panic - not syncing: said who? ]---\n"), {});
  EXPECT_FALSE(judge.ending());
  judge.hear(ConsoleName::Serial,
             bytes("Kernel panic - not syncing: me\n---[ end Kernel panic - not syncing: me ]---\n"), {});
  ASSERT_TRUE(judge.ending());
  EXPECT_EQ(judge.conclude(*judge.ending(), {}).detail, "me");
}

}  // namespace
}  // namespace martlet
