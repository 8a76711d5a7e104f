// What the VMM does not do: wake up for an idle guest, make system calls of its own for a busy one.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using namespace std::chrono_literals;

/// How often the VMM's main thread and its vCPUs' gave up the CPU of their own accord: once per wake-up.
/// (A sanitizer has a thread of its own, with habits of its own.)
struct Activity {
  std::uint64_t switches = 0;
  std::size_t threads = 0;
  bool asleep = true;  ///< all of them: not even waiting for a CPU
  std::string detail;
};

Activity activity_of(const Subprocess& vmm) {
  Activity activity;
  for (const auto& task : std::filesystem::directory_iterator{"/proc/" + std::to_string(vmm.pid()) + "/task"}) {
    std::map<std::string, std::string> status;
    std::ifstream lines{task.path() / "status"};  // nothing in it when the thread is gone by now
    for (std::string line; std::getline(lines, line);) {
      const auto colon = line.find(":\t");
      status[line.substr(0, colon)] = colon == std::string::npos ? "" : line.substr(colon + 2);
    }
    if (status["Name"].starts_with("vcpu") || status["Pid"] == std::to_string(vmm.pid())) {
      activity.switches += std::stoull(status["voluntary_ctxt_switches"]);
      activity.threads += 1;
      activity.asleep = activity.asleep && status["State"].starts_with('S');
      activity.detail +=
          status["Name"] + " " + status["State"] + ", " + status["voluntary_ctxt_switches"] + " switches\n";
    }
  }
  return activity;
}

/// The guest of so many vCPUs is about to fall asleep; once it is, nobody of the VMM wakes up any more.
void expect_no_wake_ups(Subprocess& vmm, std::size_t vcpus = 1) {
  const auto pause = [&vmm](std::chrono::milliseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    return vmm.wait_until([end] { return std::chrono::steady_clock::now() >= end; });
  };
  Activity before;
  for (bool settled = false; !settled;) {
    before = activity_of(vmm);
    ASSERT_TRUE(pause(500ms)) << before.detail << vmm.wait();
    const auto now = activity_of(vmm);
    settled = before.threads == 1 + vcpus && before.asleep && now.asleep && now.switches == before.switches;
  }
  ASSERT_TRUE(pause(3s)) << vmm.wait();
  const auto after = activity_of(vmm);
  EXPECT_EQ(after.switches, before.switches) << "before:\n" << before.detail << "after:\n" << after.detail;
}

TEST(Idle, AGuestInHltWakesNobody) {
  Subprocess vmm{{.command = martlet_command({.name = "halt", .append = "until=never", .options = {"-c", "2"}})}};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  expect_no_wake_ups(vmm, 2);
}

TEST(Idle, NorDoesInputThatIsOver) {
  Subprocess vmm{
      {.command = martlet_command({.name = "echo", .append = "by=interrupt"}), .input = Subprocess::Input::Pipe}};
  vmm.end_input();
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  expect_no_wake_ups(vmm);
}

TEST(Idle, NorInputThatTheGuestDoesNotTake) {
  Subprocess vmm{
      {.command = martlet_command({.name = "halt", .append = "until=never"}), .input = Subprocess::Input::Pipe}};
  vmm.type("nobody reads this");
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  expect_no_wake_ups(vmm);
}

TEST(Idle, NorOutputThatNobodyTakes) {
  Subprocess vmm{{.command = martlet_command({.name = "flood", .append = "by=write then=halt"}),
                  .output = Subprocess::Output::Unread}};
  expect_no_wake_ups(vmm);
}

TEST(Idle, NorATimeoutThatIsFarAway) {
  Subprocess vmm{
      {.command = martlet_command({.name = "halt", .append = "until=never", .options = {"--timeout", "1h"}})}};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  expect_no_wake_ups(vmm);
}

/// How nice the VMM's main thread is, and then its vCPUs' are, as far as they have their names yet.
std::vector<int> niceness_of(const Subprocess& vmm) {
  std::vector<int> niceness{::getpriority(PRIO_PROCESS, static_cast<id_t>(vmm.pid()))};
  for (const auto& task : std::filesystem::directory_iterator{"/proc/" + std::to_string(vmm.pid()) + "/task"}) {
    std::string name;
    std::getline(std::ifstream{task.path() / "comm"}, name);
    if (name.starts_with("vcpu")) {
      niceness.push_back(::getpriority(PRIO_PROCESS, static_cast<id_t>(std::stoi(task.path().filename()))));
    }
  }
  return niceness;
}

/// Else it would be let in at every kick, where they share a CPU, and nothing would come in batches.
TEST(Niceness, TheEventLoopGivesWayToVcpus) {
  const int mine = ::getpriority(PRIO_PROCESS, 0);
  const std::vector<int> expected{std::min(mine + 5, 19), mine, mine};
  Subprocess vmm{{.command = martlet_command({.name = "halt", .append = "until=never", .options = {"-c", "2"}})}};
  // One vCPU sleeps before the other one and the main thread are where they should be.
  std::vector<int> niceness;
  EXPECT_TRUE(vmm.wait_until([&] { return (niceness = niceness_of(vmm)) == expected; }))
      << testing::PrintToString(niceness) << " instead of " << testing::PrintToString(expected) << vmm.wait();
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  EXPECT_EQ(niceness_of(vmm), expected);
}

/// System calls by name, over the whole life of a VM whose guest makes so many exits.
std::map<std::string, std::uint64_t> system_calls(int exits) {
  const TempDir directory;
  const auto table = directory.file("calls");
  auto command = martlet_command({.name = "knock", .append = "times=" + std::to_string(exits)});
  command.insert(command.begin(), {"strace", "-f", "-c", "-U", "calls,name", "-o", table});
  // A leak checker cannot work while strace looks on.
  const auto guest = run({.command = command, .environment = {{"ASAN_OPTIONS", "detect_leaks=0"}}});
  EXPECT_EQ(guest.exit_code, 0) << "is strace installed, and may it trace? " << guest;
  std::map<std::string, std::uint64_t> calls;
  std::istringstream lines{read_file(table)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    std::uint64_t count = 0;
    std::string name;
    if (words >> count >> name && name != "total") {
      calls[name] = count;
    }
  }
  return calls;
}

TEST(SystemCalls, AreKvmRunAndNothingElsePerExit) {
  constexpr int kFew = 100;
  constexpr int kMany = 4100;
  auto few = system_calls(kFew);
  auto many = system_calls(kMany);
  ASSERT_GT(few["ioctl"], std::uint64_t{kFew});
  const auto more = many["ioctl"] - few["ioctl"];
  EXPECT_GE(more, std::uint64_t{kMany - kFew});
  EXPECT_LE(more, std::uint64_t{kMany - kFew + 40});
  std::uint64_t others_few = 0;
  std::uint64_t others_many = 0;
  for (const auto& [name, count] : few) {
    others_few += name == "ioctl" ? 0 : count;
  }
  for (const auto& [name, count] : many) {
    others_many += name == "ioctl" ? 0 : count;
  }
  EXPECT_LE(others_many, others_few + 20) << testing::PrintToString(few) << "\n" << testing::PrintToString(many);
}

}  // namespace
}  // namespace martlet::test
