#include "vmm/debug/ktap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/subprocess.h"
#include "tests/unit/xml_check.h"
#include "vmm/debug/judge.h"
#include "vmm/debug/junit.h"

namespace martlet {
namespace {

using Status = TestStatus;
using Source = KtapParser::Source;

KtapParser parse(const std::string& text, std::string_view crash = {}) {
  KtapParser parser;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) {
    parser.hear(line, Source::Program);
  }
  parser.finish(crash);
  return parser;
}

/// "suite/name: status, …"
std::string results(const KtapParser& parser) {
  std::string text;
  for (const auto& test : parser.results()) {
    text += (test.suite.empty() ? "" : test.suite + "/") + test.name + ": " + std::string{name_of(test.status)} + "\n";
  }
  return text;
}

constexpr const char* kKunit =
    "KTAP version 1\n"
    "1..2\n"
    "    KTAP version 1\n"
    "    # Subtest: example\n"
    "    # module: kunit_example_test\n"
    "    1..3\n"
    "    # example_simple_test: initializing\n"
    "    ok 1 example_simple_test\n"
    "    # example_fails: EXPECTATION FAILED at lib/kunit/example.c:29\n"
    "    Expected 1 + 1 == 3, but\n"
    "        1 + 1 == 2 (0x2)\n"
    "    not ok 2 example_fails\n"
    "    ok 3 example_skip # SKIP not on this machine\n"
    "# example: pass:1 fail:1 skip:1 total:3\n"
    "not ok 1 example\n"
    "    KTAP version 1\n"
    "    # Subtest: shifts\n"
    "    1..1\n"
    "        KTAP version 1\n"
    "        # Subtest: shift\n"
    "        ok 1 by_one\n"
    "        ok 2 by_two\n"
    "    ok 1 shift\n"
    "ok 2 shifts\n";

TEST(Ktap, NestedAsKunitPrintsIt) {
  const auto parser = parse(kKunit);
  EXPECT_EQ(results(parser),
            "example/example_simple_test: passed\nexample/example_fails: failed\nexample/example_skip: skipped\n"
            "shifts.shift/by_one: passed\nshifts.shift/by_two: passed\n");
  EXPECT_NE(parser.results()[1].log.find("Expected 1 + 1 == 3"), std::string::npos);
  EXPECT_EQ(parser.results()[2].reason, "SKIP not on this machine");
}

TEST(Ktap, OldKunitAndTwoSpaces) {
  EXPECT_EQ(results(parse("TAP version 14\n1..1\n    # Subtest: sysctl\n    1..1\n    ok 1 - null\nok 1 - sysctl\n")),
            "sysctl/null: passed\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 main\n")),
            "main/a: passed\nmain/b: failed\n");
}

TEST(Ktap, NestedAsKselftestPrintsIt) {
  EXPECT_EQ(results(parse("TAP version 13\n1..3\n# timeout set to 45\n# selftests: timers: posix_timers\n"
                          "# TAP version 13\n# 1..2\n# ok 1 check_itimer\n# # a note\n# not ok 2 check_timer\n"
                          "# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:0 error:0\n"
                          "not ok 1 selftests: timers: posix_timers # exit=1\n"
                          "# selftests: timers: mqueue\nok 2 selftests: timers: mqueue # SKIP\n"
                          "not ok 3 selftests: timers: slow # TIMEOUT 45 seconds\n")),
            "selftests: timers: posix_timers/check_itimer: passed\n"
            "selftests: timers: posix_timers/check_timer: failed\n"
            "selftests: timers: mqueue: skipped\nselftests: timers: slow: failed\n");
}

TEST(Ktap, Directives) {
  EXPECT_EQ(results(parse("KTAP version 1\nok 1 - a # skip lower case\nnot ok 2 b # TODO later\nok 3 c # TODO done\n"
                          "ok 4 d # XFAIL as expected\nok 5 # SKIP no name\nok 6\nnot ok\nok 8 - 9 lives\n1..8\n")),
            "a: skipped\nb: skipped\nc: passed\nd: skipped\ntest 5: skipped\ntest 6: passed\ntest 7: failed\n"
            "9 lives: passed\n");
}

TEST(Ktap, WhatIsPlannedAndMissingIsAnError) {
  EXPECT_EQ(results(parse("KTAP version 1\n1..5\nok 1 a\nok 2 b\n")),
            "a: passed\nb: passed\ntests 3 to 5 of 5: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\nok 1 a\n1..2\n")), "a: passed\ntest 2 of 2: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..1\n    1..3\n    ok 1 a\nok 1 outer\n")),
            "outer/a: passed\nouter/tests 2 to 3 of 3: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..18446744073709551615\n")),
            "tests 1 to 18446744073709551615 of "
            "18446744073709551615: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..0 # SKIP nothing to do\n")), "");
  EXPECT_EQ(results(parse("KTAP version 1\n")), "test 1: error\n");
  EXPECT_EQ(results(parse("TAP version 13\nTAP version 13\n1..1\nok 1 a\n")), "a: passed\n");
}

TEST(Ktap, TheMissingOneIsNamed) {
  EXPECT_EQ(results(parse("KTAP version 1\n1..3\nok 1 a\nok 3 c\n")), "a: passed\nc: passed\ntest 2 of 3: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..3\nok 1 a\nok 3 c\nok 3 d\n")),
            "a: passed\nc: passed\nd: passed\ntest 2 of 3: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..7\nok 3 c\nok 6 f\n", "oops")),
            "c: passed\nf: passed\ntests 1 to 2 of 7: error\ntests 4 to 5 of 7: error\ntest 7 of 7: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..3\nok 2 b\nok 1 a\nok\n")),
            "b: passed\na: passed\ntest 2: passed\n"
            "test 3 of 3: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..2\nok 0 a\nok 1 b\n")), "a: passed\nb: passed\n") << "from 0";
}

TEST(Ktap, MoreThanPlannedIsAnError) {
  EXPECT_EQ(results(parse("KTAP version 1\n1..1\nok 1 a\nok 2 b\n")),
            "a: passed\nb: passed\nmore tests than planned: error\n");
  EXPECT_EQ(results(parse("KTAP version 1\n1..1\n    1..1\n    ok 1 a\n    ok 1 b\nok 1 outer\n")),
            "outer/a: passed\nouter/b: passed\nouter/more tests than planned: error\n");
}

// Suites of a module that is loaded later: without a plan of their own, or with one and numbers that go on.
TEST(Ktap, KunitsSuitesMayGoOnCounting) {
  for (const std::string more : {"ok 2 b\n", "KTAP version 1\n1..1\nok 2 b\n"}) {
    KtapParser parser;
    std::istringstream lines{"KTAP version 1\n1..1\nok 1 a\n" + more};
    for (std::string line; std::getline(lines, line);) {
      parser.hear(line, Source::Kernel);
    }
    parser.finish();
    EXPECT_EQ(results(parser), "a: passed\nb: passed\n");
  }
}

TEST(Ktap, ACrashIsTheRunningTests) {
  const std::string text = kKunit;
  const auto parser = parse(text.substr(0, text.find("    # example_fails")), "kernel BUG at x.c:1!");
  EXPECT_EQ(results(parser),
            "example/example_simple_test: passed\nexample/test 2 of 3: error\nexample/test 3 of 3: error\n"
            "test 2 of 2: error\n");
  EXPECT_EQ(parser.results()[1].reason, "the kernel crashed in it: kernel BUG at x.c:1!");
}

TEST(Ktap, AGroupWithoutItsOwnResultIsCut) {
  EXPECT_TRUE(parse("KTAP version 1\n    # Subtest: a\n    1..1\n    ok 1 x\n").failed());
  EXPECT_EQ(results(parse("KTAP version 1\n1..2\n    # Subtest: a\n    1..1\n    ok 1 x\n    # Subtest: b\n    1..1\n"
                          "    ok 1 y\nok 2 b\n")),
            "a/x: passed\na/the end of its tests: error\nb/y: passed\n");
}

TEST(Ktap, AGroupThatFailsWithoutAFailedTestCounts) {
  EXPECT_EQ(results(parse("KTAP version 1\n1..1\n    1..1\n    ok 1 x\nnot ok 1 a\n")), "a/x: passed\na: failed\n");
}

TEST(Ktap, BailOut) {
  const auto parser = parse("TAP version 13\n1..5\nok 1 a\nBail out! no memory\nok 2 b\n");
  EXPECT_EQ(results(parser), "a: passed\nBail out!: error\n");
}

TEST(Ktap, WithoutAVersionLineItIsNone) {
  EXPECT_EQ(results(parse("1..2\nok 1 a\nnot ok 2 b\n")), "");
  EXPECT_FALSE(parse("say KTAP version 1\nnot ok 1\n").started());
}

Verdict judge(const std::string& console, const Ending& ending = {.kind = Ending::Kind::PowerOff}) {
  Judge judge{{.expect = {}, .forbid = {"never"}}};
  judge.hear(ConsoleName::Serial, std::as_bytes(std::span{console}), {});
  return judge.conclude(ending, std::chrono::milliseconds{1500});
}

std::string stamped(const std::string& text) {
  std::istringstream lines{text};
  std::string out;
  int i = 100000;
  for (std::string line; std::getline(lines, line); ++i) {
    out += "[    1." + std::to_string(i) + "][    T1] " + line + "\r\n";
  }
  return out;
}

TEST(KtapOnAConsole, OthersMaySpeakInBetween) {
  const auto kernel = judge("ok 1 - a program's\n" + stamped(kKunit) + "not ok 9 - a program's\n");
  EXPECT_EQ(kernel.tests.size(), 5);
  EXPECT_EQ(kernel.name, "tests-failed");
  EXPECT_EQ(kernel.exit_code, 1);
  const auto program = judge(
      "[    1.000000] Run /init\nTAP version 13\n1..2\nok 1 a\n[    2.000000] not ok 7 usb\nok 2 b[    3.000000] "
      "random: "
      "crng init done\n");
  EXPECT_EQ(program.tests.size(), 2);
  EXPECT_EQ(program.tests[1].name, "b");
  EXPECT_EQ(program.name, "power-off");
}

TEST(KtapOnAConsole, ACrashWinsOverItsTests) {
  const auto verdict = judge(stamped("KTAP version 1\n1..2\nok 1 a\n") +
                             "[    2.000000] kernel BUG at x.c:1!\n[    2.100000] RIP: 0010:f+0x1/0x2\n");
  EXPECT_EQ(verdict.name, "bug");
  EXPECT_EQ(verdict.exit_code, 126);
  EXPECT_EQ(verdict.tests.at(1).status, Status::Error);
}

TEST(KtapOnAConsole, AnyCutGivesJUnitThatIsWellFormed) {
  auto text = stamped(kKunit) + "\x1b[31m\xff\xfe<&\">]]>\x01\n";
  for (int i = 0; i < 40; ++i) {
    text += "[    2.00000" + std::to_string(i % 10) + "]     not ok " + std::to_string(i) +
            " n<a>&\"'\xc3\x28\xed\xa0\x80\xf0\x9f\x90\xa6 # b\n";
  }
  std::mt19937 random{4711};
  std::map<int, int> codes;
  for (int i = 0; i < 200; ++i) {
    const auto cut = random() % text.size();
    for (const auto kind : {Ending::Kind::PowerOff, Ending::Kind::TripleFault, Ending::Kind::Timeout}) {
      const auto verdict = judge(text.substr(0, cut), {.kind = kind, .detail = "<cut> & \"short\""});
      const auto xml = to_junit(verdict);
      EXPECT_EQ(test::xml_fault(xml), "") << xml;
      ++codes[verdict.exit_code];
      if (kind == Ending::Kind::PowerOff && verdict.exit_code == 0) {  // nothing was begun
        EXPECT_EQ(verdict.tests.size(), 0) << cut;
      }
    }
  }
  EXPECT_GT(codes[1], 100);
  EXPECT_EQ(codes[124], 200);
}

/// A log of tests that all pass: no cut of it may. A line that is not whole counts for nothing.
struct Passing {
  std::string text;
  std::string begins;  // with the end of this; before, there are no tests
};

Passing passing_kunit() {
  constexpr const char* kText =
      "random: crng init done\n"
      "KTAP version 1\n"
      "1..12\n"
      "    KTAP version 1\n"
      "    # Subtest: list-kunit-test\n"
      "    # module: list_test\n"
      "    1..2\n"
      "    ok 1 list_test_list_init\n"
      "usb 1-1: new high-speed USB device number 2\n"
      "    ok 2 list_test_list_add # SKIP not on this machine\n"
      "# list-kunit-test: pass:1 fail:0 skip:1 total:2\n"
      "# Totals: pass:1 fail:0 skip:1 total:2\n"
      "ok 1 list-kunit-test\n"
      "    KTAP version 1\n"
      "    # Subtest: overflow\n"
      "    1..1\n"
      "        KTAP version 1\n"
      "        # Subtest: shift\n"
      "clocksource: Switched to clocksource tsc\n"
      "        ok 1 by <one> & \"two\"\n"
      "        ok 2 by_two\n"
      "    # shift: pass:2 fail:0 skip:0 total:2\n"
      "    ok 1 shift\n"
      "# overflow: pass:1 fail:0 skip:0 total:1\n"
      "ok 2 overflow\n";
  std::string text{kText};
  for (int suite = 3; suite <= 12; ++suite) {
    const auto number = std::to_string(suite);
    text += "    KTAP version 1\n    # Subtest: suite" + number + "\n    1..2\n    ok 1 a\nEXT4-fs (vda): mounted\n" +
            "    ok 2 b\nok " + number + " suite" + number + "\n";
  }
  return {.text = stamped(text), .begins = "] KTAP version "};
}

Passing passing_kselftest() {
  std::string text = "[    1.000000][    T1] Run /init as init process\r\nTAP version 13\n1..11\n";
  for (int test = 1; test <= 11; ++test) {
    const auto number = std::to_string(test);
    text += "# timeout set to 45\n# selftests: timers: t" + number + "\n# TAP version 13\n# 1..2\n# ok 1 first\n" +
            "[    2.0000" + std::to_string(test + 10) + "][   T12] not ok 7 usb\r\n# # a note\n# ok 2 second\n" +
            "# # Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0\nok " + number + " selftests: timers: t" +
            number + "\n";
  }
  return {.text = text, .begins = "\nTAP version "};
}

TEST(KtapOnAConsole, NoCutOfTestsThatPassPasses) {
  std::mt19937 random{20'240'501};
  const test::TempDir directory;
  std::vector<std::string> parse{
      "python3", "-c",
      "import sys, xml.etree.ElementTree as E\n"
      "for path in sys.argv[1:]:\n"
      "    wants = int(path.rsplit('.', 1)[1])\n"
      "    errors = [case.find('error') for case in E.parse(path).iter('testcase')]\n"
      "    told = [error for error in errors if error is not None and error.get('message')]\n"
      "    assert bool(told) == bool(wants), path\n"};
  int cut_short = 0;
  for (const auto& log : {passing_kunit(), passing_kselftest()}) {
    const auto whole = judge(log.text);
    EXPECT_EQ(whole.name, "power-off") << to_junit(whole);
    EXPECT_GT(whole.tests.size(), 20);
    const auto begins = log.text.find(log.begins) + log.begins.size();
    for (int i = 0; i < 100; ++i) {
      const auto cut = random() % log.text.size();
      const auto verdict = judge(log.text.substr(0, cut));
      const bool is_short = cut >= begins;
      SCOPED_TRACE("..." + log.text.substr(cut - std::min<std::size_t>(cut, 100), std::min<std::size_t>(cut, 100)));
      EXPECT_EQ(verdict.name, is_short ? "tests-failed" : "power-off");
      EXPECT_EQ(verdict.exit_code, is_short ? 1 : 0);
      cut_short += is_short ? 1 : 0;
      parse.push_back(directory.file(std::to_string(parse.size()) + (is_short ? ".1" : ".0")));
      std::ofstream{parse.back()} << to_junit(verdict);
    }
  }
  EXPECT_GT(cut_short, 150);
  const auto parsed = test::run({.command = parse});
  EXPECT_EQ(parsed.exit_code, 0) << parsed.err;
}

TEST(Junit, CountsAddUp) {
  auto verdict = judge(stamped(kKunit));
  const auto xml = to_junit(verdict);
  EXPECT_EQ(test::xml_fault(xml), "");
  EXPECT_NE(xml.find(R"(<testsuites name="martlet" tests="7" failures="1" errors="0" skipped="1")"), std::string::npos)
      << xml;
  EXPECT_NE(xml.find(R"(<testcase classname="example" name="example_fails")"), std::string::npos) << xml;
  EXPECT_NE(xml.find(R"(<testcase classname="martlet" name="forbid: never")"), std::string::npos) << xml;
}

TEST(Junit, ABadBootIsAFailedTest) {
  const auto xml =
      to_junit(verdict_of({.kind = Ending::Kind::TripleFault, .vcpu = 1}, std::chrono::milliseconds{1500}));
  EXPECT_NE(xml.find("<failure message=\"triple-fault (vCPU 1, 1.5 s)\"/>"), std::string::npos) << xml;
}

TEST(XmlFault, FindsFaults) {
  for (const char* bad :
       {"<a>", "<a></b>", "<a b=c/>", "<a>&x</a>", "<a>\x01</a>", "<a/><b/>", "<a b=\"<\"/>", "\xff"}) {
    EXPECT_NE(test::xml_fault(bad), "") << bad;
  }
  EXPECT_EQ(test::xml_fault("<?xml version=\"1.0\"?>\n<a b=\"c\"><d/>e&amp;</a>\n"), "");
}

TEST(Ktap, WhateverComesIsBounded) {
  KtapParser parser;
  parser.hear("KTAP version 1", Source::Program);
  for (int i = 0; i < 100'000; ++i) {
    parser.hear(std::string(static_cast<std::size_t>(i % 40), ' ') + "not ok 1 " + std::string(900, 'x'),
                Source::Program);
  }
  parser.finish();
  EXPECT_LT(parser.results().size(), 30'000);
  EXPECT_TRUE(parser.failed());
}

}  // namespace
}  // namespace martlet
