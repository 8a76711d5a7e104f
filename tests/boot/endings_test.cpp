#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/boot/guest.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Case {
  std::string name;
  Guest guest;
  int exit_code = 0;
  std::string verdict;
  std::string detail{};   ///< words of the verdict's
  std::string console{};  ///< words of the console's
  std::string where{};    ///< how the verdict's begins
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.guest; }

class EndingTest : public ::testing::TestWithParam<Case> {};

TEST_P(EndingTest, HasItsVerdict) {
  const auto& expected = GetParam();
  const auto ended = boot(expected.guest);
  SCOPED_TRACE(::testing::Message() << ended);
  EXPECT_EQ(ended.outcome.exit_code, expected.exit_code);
  EXPECT_THAT(ended.outcome.out, HasSubstr(expected.console));
  ASSERT_TRUE(ended.verdict.is_object());
  EXPECT_EQ(ended.verdict["verdict"], expected.verdict);
  EXPECT_EQ(ended.verdict["exit_code"], expected.exit_code);
  EXPECT_THAT(ended.verdict["detail"].get<std::string>(), HasSubstr(expected.detail));
  EXPECT_THAT(ended.verdict.value("where", ""), StartsWith(expected.where));
  EXPECT_TRUE(ended.verdict["elapsed_ms"].is_number_unsigned());
}

Guest guest(std::string append, std::string kernel = "cloud-6.1") {
  return {.kernel = std::move(kernel), .append = "quiet " + append};
}
Guest guest_with_timeout(std::string append, std::string timeout) {
  auto with = guest(std::move(append));
  with.more = {"--timeout", std::move(timeout)};
  return with;
}

INSTANTIATE_TEST_SUITE_P(
    Endings, EndingTest,
    ::testing::Values(
        Case{"PowerOff", guest("martlet.test=poweroff", "cloud-6.12"), 0, "power-off", "ACPI S5", "reboot: Power down"},
        Case{"RebootByAcpi", guest("martlet.test=reboot"), 0, "reset", "ACPI"},
        Case{"RebootByKeyboardController", guest("reboot=k martlet.test=reboot"), 0, "reset", "i8042"},
        // Linux's reboot=t is a triple fault by intent, but nobody can tell it from any other: 126.
        Case{"RebootByTripleFault", guest("reboot=t martlet.test=reboot"), 126, "triple-fault"},
        // Debian's pvpanic device is a module, not loaded here: the console's words and the reset tell.
        Case{"Panic", guest("martlet.test=panic"), 126, "panic", "sysrq triggered crash", "Kernel panic - not syncing"},
        Case{"PanicWithPvpanic", guest("martlet.test=panic martlet.pvpanic"), 126, "panic", "sysrq triggered crash"},
        // Without a console, its memory tells.
        Case{"PanicWithoutConsole", guest("console= martlet.test=panic"), 126, "panic", "sysrq triggered crash", "",
             "sysrq_handle_crash+0x"},
        Case{"PanicWithoutConsoleWithPvpanic", guest("console= martlet.test=panic martlet.pvpanic"), 126, "panic",
             "sysrq triggered crash", "", "sysrq_handle_crash+0x"},
        // A kernel told to stay where it panicked never resets.
        Case{"PanicForEver", guest("panic=0 martlet.test=panic"), 126, "panic", "sysrq triggered crash"},
        Case{"InitExits", guest("martlet.test=exit", "full-6.1"), 126, "panic",
             "Attempted to kill init! exitcode=0x00000300"},
        Case{"NoRoot", {.append = "quiet", .with_root = false}, 126, "panic", "Unable to mount root fs"},
        Case{"ExitPort", guest("martlet.test=exitport=42"), 42, "guest-exit"},
        Case{"IsaDebugExit", guest("martlet.test=debugexit=16"), 33, "guest-exit"},
        // However busy the host: long after its start, or in the middle of it.
        Case{"TimeOut", guest_with_timeout("martlet.test=hang", "2s"), 124, "timeout"}),
    [](const ::testing::TestParamInfo<Case>& a_case) { return a_case.param.name; });

// An idle guest, all of its vCPUs asleep, is ended in time as well.
TEST(EndingByClock, IdleGuestTimesOut) {
  bool idle = false;
  for (const auto* timeout : {"25s", "50s", "100s"}) {  // a busy host may not boot it in the first of them
    RunningGuest running{{.append = "quiet martlet.test=hang", .cpus = 2, .more = {"--timeout", timeout}}};
    idle = running.process().wait_for("martlet-guest: hang");
    const auto ended = running.wait();
    EXPECT_EQ(ended.outcome.exit_code, 124) << ended;
    if (idle) {
      break;
    }
  }
  EXPECT_TRUE(idle);
}

TEST(EndingBySignal, TermPressesThePowerButton) {
  RunningGuest running{{.append = "quiet martlet.test=powerbutton"}};
  ASSERT_TRUE(running.process().wait_for("READY")) << running.wait();
  running.process().send_signal(SIGTERM);
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "power-off");
  EXPECT_THAT(ended.outcome.out, HasSubstr("power button pressed"));
}

TEST(EndingBySignal, SecondOneEndsAGuestThatDoesNotListen) {
  RunningGuest running{{.append = "quiet martlet.test=hang"}};
  ASSERT_TRUE(running.process().wait_for("martlet-guest: hang")) << running.wait();
  running.process().send_signal(SIGINT);
  ASSERT_TRUE(running.process().wait_for_error("pressed the power button"));
  running.process().send_signal(SIGTERM);
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 128 + SIGTERM) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "signal");
}

}  // namespace
}  // namespace martlet::test
