// The host's half of --exec.
#include "vmm/exec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "devices/exec_port.h"
#include "vmm/base/error.h"
#include "vmm/debug/verdict.h"

namespace martlet {
namespace {

using testing::HasSubstr;
using Kind = Ending::Kind;

Config with_exec(std::string command = "true") {
  Config config;
  config.root = "dir";
  config.exec = std::move(command);
  config.serial.kind = SerialTarget::Kind::Null;
  return config;
}

std::string refusal(const Config& config) {
  try {
    check_exec(config);
  } catch (const HostError& error) {
    return error.what();
  }
  return "(accepted)";
}

TEST(Exec, ConflictsAreNamed) {
  EXPECT_EQ(refusal(with_exec()), "(accepted)");
  auto config = with_exec();
  config.root.reset();
  EXPECT_THAT(refusal(config), HasSubstr("--root DIR"));
  config.initrds = {"initrd.img"};
  EXPECT_EQ(refusal(config), "(accepted)");

  EXPECT_THAT(refusal(with_exec("")), HasSubstr("wants a command"));
  EXPECT_EQ(refusal(with_exec(std::string((128U << 10U) - 1, 'x'))), "(accepted)");
  EXPECT_THAT(refusal(with_exec(std::string(128U << 10U, 'x'))), HasSubstr("131072 bytes"));

  config = with_exec();
  config.append = "quiet rdinit=/bin/sh";
  EXPECT_THAT(refusal(config), HasSubstr("rdinit="));
  config = with_exec();
  config.serial.kind = SerialTarget::Kind::Stdio;
  EXPECT_THAT(refusal(config), HasSubstr("--serial stdio"));
  config = with_exec();
  config.console = SerialTarget{};
  EXPECT_THAT(refusal(config), HasSubstr("--console stdio"));
  config = with_exec();
  config.ports = {{.name = "agent", .target = {}}};
  EXPECT_THAT(refusal(config), HasSubstr("--port name=agent,stdio"));
  config.ports = {{.name = "martlet.log"}};
  EXPECT_THAT(refusal(config), HasSubstr("Martlet's own"));
  config.ports = {{.name = "agent"}};
  EXPECT_EQ(refusal(config), "(accepted)");
}

TEST(Exec, StartsOurInitBeforeTheUsersParameters) {
  auto config = with_exec();
  config.append = "quiet -- word";
  EXPECT_EQ(kernel_command_line(config), "console=ttyS0 panic=-1 rdinit=/.martlet/init quiet -- word");
  EXPECT_EQ(count_virtio_devices(config), 1U);
}

TEST(Exec, EveryStatusBecomesItsExitCode) {
  for (int code = 0; code < 256; ++code) {
    const auto ending = parse_exec_status("exit " + std::to_string(code));
    ASSERT_TRUE(ending) << code;
    EXPECT_EQ(ending->kind, Kind::GuestExit);
    EXPECT_EQ(verdict_of(*ending, {}).exit_code, code);
    EXPECT_EQ(ending->signal, 0);
  }
  for (int signal = 1; signal <= 64; ++signal) {
    const auto ending = parse_exec_status("signal " + std::to_string(signal));
    ASSERT_TRUE(ending) << signal;
    EXPECT_EQ(verdict_of(*ending, {}).exit_code, 128 + signal);
    EXPECT_EQ(ending->signal, signal);
  }
  EXPECT_EQ(parse_exec_status("signal 11")->detail, "SIGSEGV killed the command");
  EXPECT_THAT(to_json(verdict_of(*parse_exec_status("signal 11"), {}), {}), HasSubstr("\"signal\": 11"));
  EXPECT_THAT(to_json(verdict_of(*parse_exec_status("exit 139"), {}), {}), testing::Not(HasSubstr("\"signal\"")));
}

TEST(Exec, NonsenseIsNoStatus) {
  for (const auto* text : {"", "exit", "exit ", "exit 256", "exit -1", "exit 3 ", "exit 3x", "exit  3", "signal 0",
                           "signal 65", "EXIT 3", "exit 99999999999999999999", "sent 3"}) {
    EXPECT_FALSE(parse_exec_status(text)) << text;
  }
}

TEST(Exec, AGuestThatGoesAwayHasLostTheCommand) {
  for (const auto kind : {Kind::PowerOff, Kind::Reset}) {
    Ending ending{.kind = kind, .vcpu = 1};
    ExecSession::amend(ending);
    EXPECT_EQ(verdict_of(ending, {}).name, "exec-failed");
    EXPECT_EQ(verdict_of(ending, {}).exit_code, 126);
    EXPECT_EQ(ending.vcpu, 1);
    EXPECT_THAT(ending.detail, HasSubstr("before the command ended"));
  }
  for (const auto kind : {Kind::GuestExit, Kind::Panic, Kind::Timeout, Kind::Signal, Kind::HostError}) {
    Ending ending{.kind = kind, .code = 9};
    ExecSession::amend(ending);
    EXPECT_EQ(ending.kind, kind);
  }
}

TEST(Exec, TheExecPortTakesALine) {
  StopLine stop;
  ExecPort port{stop};
  const auto say = [&](std::string_view text) {
    for (const auto& byte : std::as_bytes(std::span{text})) {
      port.write(0, {&byte, 1});
    }
  };
  say("no driver\x01 of any kind");
  EXPECT_FALSE(stop.requested());
  say("\nmore");
  ASSERT_TRUE(stop.requested());
  EXPECT_EQ(stop.ending()->kind, Kind::ExecFailed);
  EXPECT_EQ(verdict_of(*stop.ending(), {}).exit_code, 125);
  EXPECT_EQ(stop.ending()->detail, "no driver? of any kind");
}

TEST(Exec, TheExecPortBoundsWhatItKeeps) {
  StopLine stop;
  ExecPort port{stop};
  const std::string flood(100'000, 'x');
  port.write(0, std::as_bytes(std::span{flood}));
  const auto newline = std::byte{'\n'};
  port.write(0, {&newline, 1});
  EXPECT_EQ(stop.ending()->detail, std::string(512, 'x'));
  std::byte read{0xff};
  port.read(0, {&read, 1});
  EXPECT_EQ(read, std::byte{0});
}

}  // namespace
}  // namespace martlet
