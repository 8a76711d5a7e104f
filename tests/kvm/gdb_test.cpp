// Stock gdb at a running Martlet.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
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
class LateGdb : public Gdb {
 protected:
  /// A guest that waits for input; `by` runs it.
  Subprocess::Config echo(const std::vector<std::string>& by) {
    auto config = start({.name = "echo"}, {});
    config.command.insert(config.command.begin(), by.begin(), by.end());
    config.input = Subprocess::Input::Pipe;
    config.environment = {{"PATH", "/usr/bin:/bin:/usr/sbin:/sbin"}};
    return config;
  }
  static std::vector<std::string> in_namespace() {
    std::vector<std::string> words{"unshare", "--net"};
    if (::geteuid() != 0) {
      words.emplace_back("--map-root-user");
    }
    words.insert(words.end(), {"sh", "-c", "ip link set lo up; exec \"$@\"", "sh"});
    return words;
  }
  /// In the namespace of that one.
  static std::vector<std::string> beside(const Subprocess& other) {
    std::vector<std::string> words{"nsenter", "--target", std::to_string(other.pid()), "--net"};
    if (::geteuid() != 0) {
      words.insert(words.end(), {"--user", "--preserve-credentials"});
    }
    return words;
  }
};

TEST_F(LateGdb, ComesAfterSigusr1) {
  Subprocess vmm{echo(in_namespace())};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  const auto there = beside(vmm);
  const auto sockets = "/proc/" + std::to_string(vmm.pid()) + "/net/tcp";
  EXPECT_THAT(read_file(sockets), Not(HasSubstr(":04D2 ")));  // 1234
  vmm.send_signal(SIGUSR1);
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  EXPECT_THAT(read_file(sockets), HasSubstr("0100007F:04D2 ")) << "not to the whole world";
  vmm.send_signal(SIGUSR1);  // once is enough
  const auto gdb = run_gdb(there, "127.0.0.1:1234", "echo", {"p received", "detach"});
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 0")) << gdb;
  vmm.type("\x04");
  EXPECT_EQ(vmm.wait().exit_code, 0);
}

TEST_F(LateGdb, FindsASecondVmAtAPortOfItsOwn) {
  Subprocess first{echo(in_namespace())};
  ASSERT_TRUE(first.wait_for("ready\n")) << first.wait();
  Subprocess second{echo(beside(first))};
  ASSERT_TRUE(second.wait_for("ready\n")) << second.wait();
  second.type("x");
  ASSERT_TRUE(second.wait_for("x")) << second.wait();
  std::string address;
  for (auto* const vmm : {&first, &second}) {
    vmm->send_signal(SIGUSR1);
    ASSERT_TRUE(vmm->wait_for_error("target remote 127.0.0.1:")) << vmm->wait();
    ASSERT_TRUE(vmm->wait_for_error("\n")) << vmm->wait();
    const auto at = vmm->err().find("127.0.0.1:");
    const auto before = std::exchange(address, vmm->err().substr(at, vmm->err().find('\n', at) - at));
    EXPECT_NE(address, before);
  }
  const auto gdb = run_gdb(beside(first), address, "echo", {"p received", "detach"});
  EXPECT_THAT(gdb.out, HasSubstr("$1 = 1")) << "the second. " << gdb;
  first.type("\x04");
  second.type("\x04");
  EXPECT_EQ(first.wait().exit_code, 0);
  EXPECT_EQ(second.wait().exit_code, 1);
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

/// How long the machine at `socket` takes to stop when it is asked to, as a client sees it.
std::vector<std::chrono::milliseconds> stop_times(const std::string& socket, int count) {
  const Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket.copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const auto ask = [&](std::string_view packet, std::string_view answer) {
    EXPECT_EQ(::send(fd.get(), packet.data(), packet.size(), MSG_NOSIGNAL), static_cast<ssize_t>(packet.size()));
    std::string said;
    std::array<char, 256> part{};
    while (said.find(answer) == std::string::npos) {
      const auto size = ::recv(fd.get(), part.data(), part.size(), 0);
      if (size <= 0) {
        ADD_FAILURE() << "no '" << answer << "' after " << packet << ": " << said;
        return;
      }
      said.append(part.data(), static_cast<std::size_t>(size));
    }
  };
  std::vector<std::chrono::milliseconds> times;
  ask("$?#3f", "$T");
  for (int i = 0; i < count; ++i) {
    ask("$c#63", "+");
    std::this_thread::sleep_for(std::chrono::milliseconds{20});  // it runs
    const auto begin = std::chrono::steady_clock::now();
    ask("\x03", "$T02");
    times.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin));
  }
  return times;
}

// The limit is what people bear; a kick takes less than a millisecond, even where the guest never exits.
TEST_F(Gdb, CtrlCStopsTwoCpusThatSpinWithin200Ms) {
  Subprocess vmm{start({.name = "spin", .options = {"-c", "2"}}, {"--gdb", "unix:" + socket()})};
  ASSERT_TRUE(vmm.wait_for("spinning 2\n")) << vmm.wait();
  auto times = stop_times(socket(), 9);
  std::ranges::sort(times);
  ASSERT_EQ(times.size(), 9U);
  // On a machine that is busy else most may take longer; not all, unless it is us.
  EXPECT_LE(times[0], std::chrono::milliseconds{200});
  std::cout << "^C took " << times[4].count() << " ms, at most " << times[8].count() << " ms\n";
}

TEST_F(Gdb, TheMonitorToldTheRealMachine) {
  {
    Subprocess vmm{start({.name = "spin", .options = {"-c", "2"}}, {"--gdb", "unix:" + socket(), "--gdb-wait"})};
    ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
    const auto gdb = debug("spin", {"monitor info mtree", "monitor nmi 2", "monitor nmi x", "monitor reset"});
    const auto said = gdb.out + gdb.err;
    EXPECT_THAT(said, HasSubstr("0x0000000000000000-0x")) << gdb;
    EXPECT_THAT(said, HasSubstr(" RAM\n")) << gdb;
    EXPECT_THAT(said, HasSubstr("  0x03f8-0x03ff uart\n")) << gdb;
    EXPECT_THAT(said, HasSubstr("there is no vCPU 2\n")) << gdb;
    EXPECT_THAT(said, HasSubstr("unknown command: nmi x")) << gdb;
    const auto ended = vmm.wait();
    EXPECT_EQ(ended.exit_code, 0) << ended;
    EXPECT_EQ(ended.out, "") << "reset before it said anything";
  }
  for (const auto* const nmi : {"monitor nmi", "monitor nmi 0"}) {
    Subprocess vmm{start({.name = "halt", .append = "until=nmi"}, {"--gdb", "unix:" + socket()})};
    ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
    const auto gdb = debug("halt", {nmi, "detach"});
    const auto ended = vmm.wait();
    EXPECT_EQ(ended.exit_code, 9) << gdb << ended;
    EXPECT_THAT(ended.out, HasSubstr("awake\n")) << gdb;
  }
}

TEST_F(Gdb, IsToldTheVerdictsExitCode) {
  Subprocess vmm{start({.name = "panic", .append = "by=pvpanic"}, {"--gdb", "unix:" + socket(), "--gdb-wait"})};
  ASSERT_TRUE(vmm.wait_for_error("target remote")) << vmm.wait();
  const auto gdb = debug("panic", {"continue"});
  EXPECT_THAT(gdb.out, HasSubstr("exited with code 0176")) << gdb;  // 126
  EXPECT_EQ(vmm.wait().exit_code, 126);
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
