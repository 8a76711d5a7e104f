// Martlet at a terminal: the guest gets it raw, the user gets it back as it was, however the VM ends.

#include <gtest/gtest.h>

#include <csignal>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using Input = Subprocess::Input;
using Output = Subprocess::Output;

constexpr const char* kCtrlA = "\x01";
constexpr const char* kCtrlD = "\x04";

class AtATerminal : public testing::Test {
 protected:
  Subprocess::Config start(const Guest& guest) {
    return {.command = martlet_command(guest),
            .input = Input::Terminal,
            .output = Output::Terminal,
            .terminal = &terminal_};
  }
  void TearDown() override {
    EXPECT_TRUE(same_settings(terminal_.settings(), before_)) << "the terminal is not as it was";
  }

  Terminal terminal_;
  const termios before_ = terminal_.settings();
};

TEST_F(AtATerminal, WhatIsTypedIsTheGuests) {
  Subprocess vmm{start({.name = "echo", .append = "by=interrupt"})};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  EXPECT_TRUE(terminal_.is_raw());
  vmm.type("ab\x03\x1a\x7f");  // Ctrl-C, Ctrl-Z and Delete too
  ASSERT_TRUE(vmm.wait_for("ab\x03\x1a\x7f")) << vmm.wait();
  vmm.type(kCtrlD);
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_EQ(guest.out, "ready\nab\x03\x1a\x7f\n") << guest;  // once: no echo but the guest's
}

TEST_F(AtATerminal, CtrlAXEndsTheVm) {
  const TempDir directory;
  const auto result = directory.file("result.json");
  Subprocess vmm{start({.name = "spin", .options = {"--result", result}})};
  ASSERT_TRUE(vmm.wait_for("spinning 1\n")) << vmm.wait();
  vmm.type(kCtrlA);
  vmm.type("x");
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_EQ(nlohmann::json::parse(read_file(result)).value("verdict", ""), "quit");
}

TEST_F(AtATerminal, CtrlAHHelps) {
  Subprocess vmm{start({.name = "halt", .append = "until=never"})};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  vmm.type(kCtrlA);
  vmm.type("h");
  EXPECT_TRUE(vmm.wait_for_error("Ctrl-A x")) << vmm.wait();
  vmm.type(kCtrlA);
  vmm.type("x");
  EXPECT_EQ(vmm.wait().exit_code, 0);
}

TEST_F(AtATerminal, CtrlANReachesAGuestThatListensToNothingElse) {
  Subprocess vmm{start({.name = "halt", .append = "until=nmi"})};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  vmm.type(kCtrlA);
  vmm.type("n");
  EXPECT_TRUE(vmm.wait_for("awake\n")) << vmm.wait();
  EXPECT_EQ(vmm.wait().exit_code, 9);
}

TEST_F(AtATerminal, CtrlATwiceIsOneForTheGuest) {
  Subprocess vmm{start({.name = "echo", .append = "by=interrupt"})};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  vmm.type(std::string{"1"} + kCtrlA + kCtrlA + "2" + kCtrlA + "a3");
  ASSERT_TRUE(vmm.wait_for(std::string{"1"} + kCtrlA + "2" + kCtrlA + "3")) << vmm.wait();
  vmm.type(kCtrlD);
  EXPECT_EQ(vmm.wait().exit_code, 5);
}

TEST_F(AtATerminal, EveryEndingGivesItBack) {
  for (const auto& [name, append, exit_code] : {std::tuple{"exit", "code=9", 9},
                                                {"power_off", "", 0},
                                                {"reset", "by=acpi", 0},
                                                {"reset", "by=triple", 126},
                                                {"panic", "by=pvpanic", 126},
                                                {"panic", "by=text", 126}}) {
    const auto guest = run(start({.name = name, .append = append}));
    EXPECT_EQ(guest.exit_code, exit_code) << guest;
    EXPECT_TRUE(same_settings(terminal_.settings(), before_)) << name << " " << append;
  }
}

TEST_F(AtATerminal, ATimeoutGivesItBack) {
  const auto guest = run(start({.name = "spin", .options = {"--timeout", "1s"}}));
  EXPECT_EQ(guest.exit_code, 124) << guest;
}

TEST_F(AtATerminal, SignalsGiveItBack) {
  Subprocess vmm{start({.name = "spin"})};
  ASSERT_TRUE(vmm.wait_for("spinning 1\n")) << vmm.wait();
  EXPECT_TRUE(terminal_.is_raw());
  vmm.send_signal(SIGTERM);
  ASSERT_TRUE(vmm.wait_for_error("a second signal ends the VM"));
  vmm.send_signal(SIGTERM);
  EXPECT_EQ(vmm.wait().exit_code, 128 + SIGTERM);
}

TEST_F(AtATerminal, AFatalSignalGivesItBack) {
  for (const int signal : {SIGSEGV, SIGABRT}) {
    // Not a sanitizer's affair, and no core file.
    auto config = start({.name = "spin"});
    config.command.insert(config.command.begin(), {"sh", "-c", R"(ulimit -c 0; exec "$0" "$@")"});
    Subprocess vmm{config};
    ASSERT_TRUE(vmm.wait_for("spinning 1\n")) << vmm.wait();
    vmm.send_signal(signal);
    const auto guest = vmm.wait();
    EXPECT_TRUE(guest.signal == signal || guest.exit_code > 0) << guest;
    EXPECT_TRUE(same_settings(terminal_.settings(), before_)) << "signal " << signal;
  }
}

TEST_F(AtATerminal, AHostErrorLeavesItAlone) {
  const auto guest = run({.command = {MARTLET_PROGRAM, "run", "/nonexistent/kernel"},
                          .input = Input::Terminal,
                          .output = Output::Terminal,
                          .terminal = &terminal_});
  EXPECT_EQ(guest.exit_code, 125) << guest;
}

// Output to a pipe and keys from a terminal: martlet run … | tee log
TEST_F(AtATerminal, TheOutputMayGoElsewhere) {
  auto config = start({.name = "echo", .append = "by=interrupt"});
  config.output = Output::Pipe;
  Subprocess vmm{config};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  vmm.type(std::string{"hello"} + kCtrlD);
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_EQ(guest.out, "ready\nhello\n") << guest;
}

// With its console elsewhere, the terminal is none of the guest's business.
TEST_F(AtATerminal, StaysTheUsersWhenTheConsoleIsElsewhere) {
  const TempDir directory;
  Subprocess vmm{
      start({.name = "halt", .append = "until=never", .options = {"--serial", "file=" + directory.file("console")}})};
  ASSERT_TRUE(vmm.wait_until([&] {
    const auto names = directory.entries();
    return !names.empty() && read_file(directory.file("console")) == "asleep\n";
  }));
  EXPECT_FALSE(terminal_.is_raw());
  vmm.type("\x03");  // the terminal makes SIGINT of it: the power button
  EXPECT_TRUE(vmm.wait_for_error("power button"));
  vmm.type("\x03");
  EXPECT_EQ(vmm.wait().exit_code, 128 + SIGINT);
}

}  // namespace
}  // namespace martlet::test
