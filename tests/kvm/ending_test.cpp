// How a VM ends: exit code, verdict and last words, for every way there is.

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

/// Exit code and verdict agree, and the JSON has all that docs promise.
void expect_verdict(const Ended& guest, std::string_view verdict, int exit_code) {
  EXPECT_EQ(guest.exit_code, exit_code) << guest;
  ASSERT_TRUE(guest.verdict.is_object()) << guest;
  EXPECT_EQ(guest.verdict.value("verdict", ""), verdict) << guest.verdict << guest;
  EXPECT_EQ(guest.verdict.value("exit_code", -1), exit_code) << guest.verdict;
  EXPECT_TRUE(guest.verdict.contains("detail") && guest.verdict["detail"].is_string()) << guest.verdict;
  EXPECT_GE(guest.verdict.value("elapsed_ms", -1), 0) << guest.verdict;
}

class ExitCodes : public testing::TestWithParam<int> {};

// Eight tests of 32 codes, each a VM of its own.
TEST_P(ExitCodes, AreTheGuestsExactly) {
  for (int code = GetParam(); code < GetParam() + 32; ++code) {
    const auto guest = run({.command = martlet_command(
                                {.name = "exit", .append = "code=" + std::to_string(code), .options = {"-m", "4M"}})});
    EXPECT_EQ(guest.exit_code, code) << guest;
    EXPECT_EQ(guest.err, "") << guest;
  }
}

INSTANTIATE_TEST_SUITE_P(From, ExitCodes, testing::Range(0, 256, 32), testing::PrintToStringParamName());

TEST(ExitPort, TakesTheLowByteOfAWiderWrite) {
  for (const char* width : {"2", "4"}) {
    const auto guest = run_martlet(
        {.name = "exit", .append = std::string{"code=4660 width="} + width, .options = {"--timeout", "5s"}});  // 0x1234
    expect_verdict(guest, "guest-exit", 0x34);
  }
}

TEST(IsaDebugExit, ShiftsAndSetsTheLowBit) {
  for (const int value : {0, 1, 2, 31, 63, 64, 127, 128, 200, 255}) {
    const auto guest = run_martlet({.name = "exit", .append = "via=debug code=" + std::to_string(value)});
    expect_verdict(guest, "guest-exit", (value << 1 | 1) & 0xff);
  }
}

TEST(IsaDebugExit, TakesWiderWrites) {
  const auto guest = run_martlet({.name = "exit", .append = "via=debug width=4 code=4660"});
  expect_verdict(guest, "guest-exit", (0x1234 << 1 | 1) & 0xff);
}

TEST(Reset, ByEveryRouteIsAnEndInGoodOrder) {
  for (const char* route : {"acpi", "i8042"}) {
    const auto guest = run_martlet({.name = "reset", .append = std::string{"by="} + route});
    expect_verdict(guest, "reset", 0);
    EXPECT_EQ(guest.out, "resetting\n");
    EXPECT_EQ(guest.err, "");
  }
}

TEST(PowerOff, ByTheSleepControlRegister) {
  const auto guest = run_martlet({.name = "power_off"});
  expect_verdict(guest, "power-off", 0);
  EXPECT_EQ(guest.out, "switching off\n");
}

TEST(Crash, TripleFault) {
  const auto guest = run_martlet({.name = "reset", .append = "by=triple"});
  expect_verdict(guest, "triple-fault", 126);
  EXPECT_EQ(guest.verdict.value("vcpu", -1), 0) << guest.verdict;
  EXPECT_NE(guest.err.find("triple fault"), std::string::npos) << guest;
}

TEST(Crash, ExecutionThatKvmCannotFollow) {
  const auto guest = run_martlet({.name = "reset", .append = "by=jump"});
  expect_verdict(guest, "kvm-error", 126);
  EXPECT_NE(guest.err.find("KVM internal error"), std::string::npos) << guest;
}

/// At a Linux kernel's addresses, 16 MiB below those that it is linked to: as KASLR does it, but the other way.
Ended crash_with_symbols(const std::string& by) {
  const TempDir directory;
  const auto map = directory.file("System.map");
  std::ofstream{map} << "ffffffff81000000 T _text\nffffffff81100000 T the_guest\nffffffffd1000000 T no_memory\n";
  return run_martlet({.name = "reset", .append = "at=kernel by=" + by, .options = {"--vmlinux", map}});
}

TEST(Crash, SaysWhereByTheKernelsSymbols) {
  const auto lost = crash_with_symbols("jump");
  expect_verdict(lost, "kvm-error", 126);
  EXPECT_EQ(lost.verdict.value("where", ""), "no_memory+0x0/0x0") << lost.verdict << lost;
  EXPECT_NE(lost.err.find("cannot emulate), at no_memory+0x0/0x0 (vCPU 0, "), std::string::npos) << lost;
  const auto tripped = crash_with_symbols("triple");
  expect_verdict(tripped, "triple-fault", 126);
  const auto where = tripped.verdict.value("where", "");
  EXPECT_TRUE(where.empty() || where.starts_with("the_guest+0x")) << "on AMD KVM does not know. " << tripped;
}

TEST(Panic, ByPvpanic) { expect_verdict(run_martlet({.name = "panic", .append = "by=pvpanic"}), "panic", 126); }

TEST(Panic, OnTheConsoleBeforeAReset) {
  const auto guest = run_martlet({.name = "panic", .append = "by=text"});
  expect_verdict(guest, "panic", 126);
  EXPECT_EQ(guest.verdict.value("detail", ""), "no working init found");
  EXPECT_NE(guest.out.find("end Kernel panic"), std::string::npos) << guest;
  EXPECT_NE(guest.err.find("no working init found"), std::string::npos) << guest;
}

TEST(Panic, OnTheConsoleOfAGuestThatThenHangs) {
  expect_verdict(run_martlet({.name = "panic", .append = "by=halt"}), "panic", 126);
}

TEST(Panic, IsSeenOnAConsoleThatNobodyReads) {
  const auto guest = run_martlet({.name = "panic", .append = "by=text", .options = {"--serial", "null"}});
  expect_verdict(guest, "panic", 126);
  EXPECT_EQ(guest.out, "");
}

TEST(Halt, AnInterruptEndsIt) {
  const auto guest = run_martlet({.name = "halt", .append = "until=timer"});
  expect_verdict(guest, "guest-exit", 7);
  EXPECT_EQ(guest.out, "asleep\nawake\n");
}

TEST(Halt, TheTimeoutEndsIt) {
  for (const char* until : {"until=never", "until=dead"}) {
    const auto guest = run_martlet({.name = "halt", .append = until, .options = {"--timeout", "3s"}});
    expect_verdict(guest, "timeout", 124);
    EXPECT_EQ(guest.out, "asleep\n") << until;
  }
}

TEST(Halt, ATimeoutThatIsNotReachedChangesNothing) {
  expect_verdict(run_martlet({.name = "halt", .append = "until=timer", .options = {"--timeout", "1m"}}), "guest-exit",
                 7);
}

// Nothing of the guest's own ever leaves these loops: interrupts are off and there are no exits.
TEST(Kick, TheTimeoutStopsCpusThatSpin) {
  const auto guest = run_martlet({.name = "spin", .options = {"-c", "2", "--timeout", "4s"}});
  expect_verdict(guest, "timeout", 124);
  EXPECT_EQ(guest.out, "spinning 2\n");
}

/// Starts the guest with --result, and does what `meanwhile` says once `ready` is on its console.
Ended run_and_interfere(Guest guest, std::string_view ready, const std::function<void(Subprocess&)>& meanwhile) {
  const TempDir directory;
  const auto result = directory.file("result.json");
  guest.options.insert(guest.options.end(), {"--result", result});
  Subprocess process{{.command = martlet_command(guest)}};
  EXPECT_TRUE(process.wait_for(ready)) << process.wait();
  meanwhile(process);
  Ended finished{process.wait(), {}};
  finished.verdict = nlohmann::json::parse(read_file(result), nullptr, false);
  return finished;
}

TEST(Signals, ASecondOneStopsCpusThatSpin) {
  const auto guest = run_and_interfere({.name = "spin", .options = {"-c", "2"}}, "spinning 2\n", [](Subprocess& vmm) {
    vmm.send_signal(SIGTERM);
    EXPECT_TRUE(vmm.wait_for_error("a second signal ends the VM"));
    vmm.send_signal(SIGTERM);
  });
  expect_verdict(guest, "signal", 128 + SIGTERM);
}

TEST(Signals, TheSecondOneGivesTheExitCode) {
  const auto guest = run_and_interfere({.name = "halt", .append = "until=never"}, "asleep\n", [](Subprocess& vmm) {
    vmm.send_signal(SIGTERM);
    EXPECT_TRUE(vmm.wait_for_error("a second signal ends the VM"));
    vmm.send_signal(SIGINT);
  });
  expect_verdict(guest, "signal", 128 + SIGINT);
}

TEST(Signals, TheFirstOnePressesThePowerButton) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const auto guest = run_and_interfere({.name = "power_off", .append = "after=button"}, "waiting\n",
                                         [signal](Subprocess& vmm) { vmm.send_signal(signal); });
    expect_verdict(guest, "power-off", 0);
    EXPECT_EQ(guest.out, "waiting\npower button\nswitching off\n");
  }
}

TEST(Signals, KilledOutrightItLeavesNothingBehind) {
  const TempDir directory;
  Subprocess vmm{{.command = martlet_command({.name = "halt", .append = "until=never"}),
                  .directory = directory.path(),
                  .environment = {{"TMPDIR", directory.path()}}}};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  EXPECT_TRUE(
      read_file("/proc/" + std::to_string(vmm.pid()) + "/task/" + std::to_string(vmm.pid()) + "/children").empty());
  vmm.send_signal(SIGKILL);
  EXPECT_EQ(vmm.wait().signal, SIGKILL);
  EXPECT_EQ(directory.entries(), std::vector<std::string>{});
}

TEST(HostErrors, AreAVerdictToo) {
  const TempDir directory;
  const auto result = directory.file("result.json");
  const Ended run_of_nothing{run({.command = {MARTLET_PROGRAM, "run", "/nonexistent/kernel", "--result", result}}),
                             nlohmann::json::parse(read_file(result), nullptr, false)};
  expect_verdict(run_of_nothing, "host-error", 125);
  EXPECT_NE(run_of_nothing.err.find("/nonexistent/kernel"), std::string::npos) << run_of_nothing;
}

}  // namespace
}  // namespace martlet::test
