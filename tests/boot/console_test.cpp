#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

#include "tests/boot/guest.h"
#include "tests/boot/report.h"

namespace martlet::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kPrompt = "martlet-guest:/# ";

struct Milestone {
  std::string name;
  double when;
};
/// Those of a trace, which begins with them: all of it, as JSON, would take a lab long.
std::vector<Milestone> milestones_of(const std::string& file) {
  std::vector<Milestone> milestones;
  std::ifstream lines{file};
  for (std::string line; milestones.size() < 4 && std::getline(lines, line);) {
    static const std::regex kMilestone{R"re("name":"([^"]*)","ph":"i".*"ts":([0-9.]+))re"};
    if (std::smatch found; std::regex_search(line, found, kMilestone)) {
      milestones.push_back({.name = found[1], .when = std::stod(found[2])});
    }
  }
  return milestones;
}

// The kernel's own messages too, by turns of status and transmit port; then lines through the tty's interrupts.
TEST(Console, LosesNoLine) {
  constexpr int kLines = 2000;
  const TempDir directory;
  const auto trace = directory.file("trace.json");
  const auto ended = boot({.append = fmt::format("martlet.test=lines={}", kLines), .more = {"--trace", trace}});
  ASSERT_EQ(ended.outcome.exit_code, 0) << ended;
  std::string expected;
  for (int i = 1; i <= kLines; ++i) {
    expected += fmt::format("line {} of {}\n", i, kLines);
  }
  // A busy host makes the kernel complain of its clock in the middle of it all, even of a line.
  static const std::regex kKernelMessage{R"(\[ *[0-9]+\.[0-9]{6}\] [^\n]*\n)"};
  EXPECT_THAT(std::regex_replace(ended.outcome.out, kKernelMessage, ""), HasSubstr(expected));
  EXPECT_THAT(ended.outcome.out, HasSubstr("Run /init as init process"));
  const auto exits = exits_of(ended.outcome.err, "uart");
  ASSERT_TRUE(exits) << ended.outcome.err;
  EXPECT_LT(static_cast<double>(*exits), 2.2 * static_cast<double>(ended.outcome.out.size()));

  static const std::regex kCounters{R"(\nKVM's counters:\n(  [^\n]*\n)*  exits +[1-9][0-9]*\n)"};
  EXPECT_TRUE(std::regex_search(ended.outcome.err, kCounters)) << ended.outcome.err;
  const auto milestones = milestones_of(trace);
  std::vector<std::string> names;
  std::ranges::transform(milestones, std::back_inserter(names), &Milestone::name);
  EXPECT_THAT(names, ElementsAre("first KVM_RUN", "first console byte", "first printk", "init"));
  EXPECT_TRUE(std::ranges::is_sorted(milestones, {}, &Milestone::when));
}

// With its sysrq=0x1b6 Debian's kernel would not crash.
TEST(Console, ABreakAndALetterAreSysrq) {
  Terminal terminal;
  RunningGuest running{
      {.append = "quiet sysrq_always_enabled"},
      {.input = Subprocess::Input::Terminal, .output = Subprocess::Output::Terminal, .terminal = &terminal}};
  auto& shell = running.process();
  ASSERT_TRUE(shell.wait_for(kPrompt)) << running.wait();
  shell.type(
      "\x01"
      "bc");
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 126) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "panic") << ended;
  EXPECT_EQ(ended.verdict["detail"], "sysrq triggered crash") << ended;
}

TEST(Console, ShellOnAPipe) {
  RunningGuest running{{.append = "quiet"}, {.input = Subprocess::Input::Pipe}};
  auto& shell = running.process();
  ASSERT_TRUE(shell.wait_for(kPrompt)) << running.wait();
  shell.type("echo $((6*7))\n");
  EXPECT_TRUE(shell.wait_for("\n42\r\n"));
  shell.type("exit\n");
  shell.end_input();
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "power-off");
}

// All at once and before anybody reads it: more than the UART's FIFO holds.
TEST(Console, CommandsTypedAhead) {
  RunningGuest running{{.append = "quiet"}, {.input = Subprocess::Input::Pipe}};
  auto& shell = running.process();
  ASSERT_TRUE(shell.wait_for(kPrompt)) << running.wait();
  std::string commands;
  for (int i = 0; i < 20; ++i) {
    commands += fmt::format("echo sum=$(({} * 1001)).\n", i);
  }
  shell.type(commands + "poweroff -f\n");
  shell.end_input();
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  std::size_t at = 0;
  for (int i = 0; i < 20; ++i) {  // in order; what the guest echoes of the rest may stand between them
    at = ended.outcome.out.find(fmt::format("sum={}.", i * 1001), at);
    ASSERT_NE(at, std::string::npos) << i << ' ' << ended;
  }
}

TEST(Console, ShellOnATerminal) {
  Terminal terminal;
  const auto before = terminal.settings();
  RunningGuest running{
      {.append = "quiet"},
      {.input = Subprocess::Input::Terminal, .output = Subprocess::Output::Terminal, .terminal = &terminal}};
  auto& shell = running.process();
  ASSERT_TRUE(shell.wait_for(kPrompt)) << running.wait();
  EXPECT_TRUE(terminal.is_raw());
  shell.type("echo $((6*7))\r");
  EXPECT_TRUE(shell.wait_for("\n42\r\n"));
  // Who says so is in the foreground already: the shell's own echo may come before sleep is there to interrupt.
  shell.type("sh -c 'echo $((6*8)); exec sleep 1000'\r");
  EXPECT_TRUE(shell.wait_for("\n48\r\n"));
  shell.type("\x03");  // Ctrl-C is the guest's, not ours
  EXPECT_TRUE(shell.wait_for(kPrompt));
  shell.type("\x01x");
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "quit");
  EXPECT_TRUE(same_settings(terminal.settings(), before));
}

}  // namespace
}  // namespace martlet::test
