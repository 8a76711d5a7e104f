// Stock gdb at a running Martlet.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// A guest that waits for gdb, and what gdb says to `commands`.
class Gdb : public ::testing::Test {
 protected:
  std::string socket() const { return directory_.file("gdb"); }

  Subprocess::Config start(const Guest& guest, std::vector<std::string> options) {
    auto all = guest;
    all.options.insert(all.options.end(), options.begin(), options.end());
    return {.command = martlet_command(all)};
  }

  Outcome debug(std::string_view guest, const std::vector<std::string>& commands) {
    return run_gdb({}, socket(), guest, commands);
  }
  /// `by` runs it.
  static Outcome run_gdb(std::vector<std::string> by, const std::string& target, std::string_view guest,
                         const std::vector<std::string>& commands) {
    return run({.command = gdb_command(std::move(by), target, guest, commands)});
  }
  static std::vector<std::string> gdb_command(std::vector<std::string> by, const std::string& target,
                                              std::string_view guest, const std::vector<std::string>& commands) {
    auto& command = by;
    command.insert(command.end(), {"gdb", "-q", "-nx", "-batch", "-ex", "set architecture i386:x86-64"});
    command.insert(command.end(), {"-ex", "target remote " + target});
    for (const auto& each : commands) {
      command.insert(command.end(), {"-ex", each});
    }
    command.push_back(guest_file(guest));
    return by;
  }

 private:
  TempDir directory_;
};

TEST_F(Gdb, StopsTheGuestBeforeItsFirstInstructionAndSteps) {
  Subprocess vmm{start({.name = "spin", .options = {"-c", "2"}}, {"--gdb", "unix:" + socket(), "--gdb-wait"})};
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  const auto gdb = debug("spin", {"info threads", "p/x $pc == (long)&pvh_start", "stepi", "stepi", "x/i $pc",
                                  "monitor info version", "hbreak guest_main", "continue", "bt", "kill"});
  EXPECT_THAT(gdb.out, HasSubstr("vCPU 0")) << gdb;
  EXPECT_THAT(gdb.out, HasSubstr("vCPU 1")) << gdb;
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 0x1")) << gdb;
  EXPECT_THAT(gdb.out, HasSubstr("<pvh_start+2>")) << gdb;
  EXPECT_THAT(gdb.out + gdb.err, HasSubstr("Martlet ")) << gdb;
  EXPECT_THAT(gdb.out, HasSubstr("Breakpoint 1, ")) << gdb;
  EXPECT_THAT(gdb.out, HasSubstr("#0  ")) << gdb;
  const auto ended = vmm.wait();
  EXPECT_EQ(ended.exit_code, 0) << ended;
  EXPECT_EQ(ended.out, "") << "killed before it said anything";
}

TEST_F(Gdb, LooksAtARunningGuestAndLetsItGo) {
  auto config = start({.name = "echo"}, {"--gdb", "unix:" + socket()});
  config.input = Subprocess::Input::Pipe;
  Subprocess vmm{std::move(config)};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  for (int i = 0; i < 3; ++i) {
    const auto gdb = debug("echo", {"p received", "detach"});
    EXPECT_THAT(gdb.out, HasSubstr("$1 = " + std::to_string(i))) << gdb;
    vmm.type("x");
    ASSERT_TRUE(vmm.wait_for("x")) << vmm.wait();
  }
  vmm.type("\x04");
  EXPECT_EQ(vmm.wait().exit_code, 3);
}

TEST_F(Gdb, SeesWhatIsWrittenAndWrites) {
  auto config = start({.name = "echo"}, {"--gdb", "unix:" + socket()});
  config.input = Subprocess::Input::Pipe;
  Subprocess vmm{std::move(config)};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  vmm.type("abc");  // may come before gdb does
  const auto gdb = debug("echo", {"set var received = 40", "p received", "detach"});
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 40")) << gdb;
  vmm.type("d\x04");
  EXPECT_GE(vmm.wait().exit_code, 41);
}

/// In a network namespace: the port is always the same.
TEST_F(Gdb, ComesLateAfterSigusr1) {
  const std::vector<std::string> as_root =
      ::geteuid() == 0 ? std::vector<std::string>{} : std::vector<std::string>{"--map-root-user"};
  auto config = start({.name = "echo"}, {});
  config.command.insert(config.command.begin(), {"sh", "-c", "ip link set lo up; exec \"$@\"", "sh"});
  config.command.insert(config.command.begin(), as_root.begin(), as_root.end());
  config.command.insert(config.command.begin(), {"unshare", "--net"});
  config.input = Subprocess::Input::Pipe;
  config.environment = {{"PATH", "/usr/bin:/bin:/usr/sbin:/sbin"}};
  Subprocess vmm{std::move(config)};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  std::vector<std::string> there{"nsenter", "--target", std::to_string(vmm.pid()), "--net"};
  if (!as_root.empty()) {
    there.insert(there.end(), {"--user", "--preserve-credentials"});
  }
  const auto sockets = "/proc/" + std::to_string(vmm.pid()) + "/net/tcp";
  EXPECT_THAT(read_file(sockets), Not(HasSubstr(":04D2 ")));  // 1234
  vmm.send_signal(SIGUSR1);
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  EXPECT_THAT(read_file(sockets), HasSubstr("0100007F:04D2 ")) << "not to the whole world";
  vmm.send_signal(SIGUSR1);  // once is enough
  const auto gdb = run_gdb(there, "localhost:1234", "echo", {"p received", "detach"});
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 0")) << gdb;
  vmm.type("\x04");
  EXPECT_EQ(vmm.wait().exit_code, 0);
}

/// CPU time that its thread of this name has had, in clock ticks; 0 when there is none.
std::uint64_t ticks_of(pid_t pid, std::string_view thread) {
  for (const auto& entry : std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/task"}) {
    const auto stat = read_file(entry.path() / "stat");
    const auto end = stat.rfind(')');
    if (stat.find("(" + std::string{thread} + ")") == std::string::npos) {
      continue;
    }
    std::istringstream fields{stat.substr(end + 2)};  // proc(5): the third field and on
    std::string field;
    for (int i = 0; i < 11; ++i) {
      fields >> field;
    }
    std::uint64_t user = 0;
    std::uint64_t system = 0;
    fields >> user >> system;
    return user + system;
  }
  return 0;
}

// vCPU 0 waits for vCPU 1 to arrive, which it has done when gdb lets vCPU 1 go on alone.
TEST_F(Gdb, WhoLooksAtTheMachineLetsNoCpuGoThatGdbHolds) {
  Subprocess vmm{start({.name = "spin", .options = {"-c", "2"}}, {"--gdb", "unix:" + socket(), "--gdb-wait"})};
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  Subprocess gdb{{.command = gdb_command(
                      {}, socket(), "spin",
                      {"hbreak ap_enter", "continue", "info threads", "delete", "thread apply 1 print $before = $pc",
                       "set scheduler-locking on", "continue", "maintenance flush register-cache",
                       "thread apply 1 print (int)($before == $pc)", "kill"})}};
  ASSERT_TRUE(gdb.wait_for("$1 = ")) << gdb.wait();
  // It spins as soon as it may.
  const auto before = ticks_of(vmm.pid(), "vcpu1");
  ASSERT_TRUE(vmm.wait_until([&] { return ticks_of(vmm.pid(), "vcpu1") > before + 2; })) << vmm.wait();
  for (int i = 0; i < 5; ++i) {
    vmm.send_signal(SIGUSR2);
    ASSERT_TRUE(vmm.wait_for_error("exits to user space: ")) << vmm.wait();
  }
  const auto so_far = ticks_of(vmm.pid(), "vcpu1");
  ASSERT_TRUE(vmm.wait_until([&] { return ticks_of(vmm.pid(), "vcpu1") > so_far + 2; })) << vmm.wait();
  gdb.send_signal(SIGINT);
  const auto said = gdb.wait();
  EXPECT_THAT(said.out, ::testing::ContainsRegex("Thread 2[^\n]* hit Breakpoint 1, ")) << said;
  EXPECT_THAT(said.out, HasSubstr("SIGINT")) << said;
  EXPECT_THAT(said.out, HasSubstr("$2 = 1\n")) << said;
  const auto ended = vmm.wait();
  EXPECT_EQ(ended.exit_code, 0) << ended;
  EXPECT_EQ(ended.out, "") << "vCPU 0 said that both spin";
}

TEST_F(Gdb, TripleFaultCanBeLookedAt) {
  Subprocess vmm{start({.name = "reset", .append = "by=triple"}, {"--gdb", "unix:" + socket(), "--gdb-wait"})};
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  const auto gdb = debug("reset", {"continue", "p/x 0x1234", "detach"});
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 0x1234")) << gdb;
  const auto ended = vmm.wait();
  EXPECT_EQ(ended.exit_code, 126) << ended;
  EXPECT_THAT(ended.err, HasSubstr("triple fault"));
}

TEST_F(Gdb, CheckTellsWhatBreakpointsThereAre) {
  const auto ended = run({.command = {MARTLET_PROGRAM, "check"}});
  EXPECT_EQ(ended.exit_code, 0) << ended;
  EXPECT_THAT(ended.out, ::testing::ContainsRegex("gdb +(software breakpoints|this host's KVM reports no int3)"))
      << ended;
}

TEST_F(Gdb, AnAddressThatIsNoneIsRefused) {
  const auto ended = run({.command = martlet_command({.name = "spin", .options = {"--gdb", "localhost:99999"}})});
  EXPECT_EQ(ended.exit_code, 125) << ended;
  EXPECT_THAT(ended.err, HasSubstr("99999"));
}

}  // namespace
}  // namespace martlet::test
