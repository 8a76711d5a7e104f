// --exec: a command in a guest as if it ran here.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;
using Input = Subprocess::Input;

/// A command in a guest, and what is not as usual about it.
struct Exec {
  std::string command;
  std::string kernel = "cloud-6.12";  ///< has its virtio drivers built in; cloud-6.1 has them as modules
  std::string root{};                 ///< empty: the kernel's own
  bool small = false;                 ///< another kernel with this one's root: small-6.1, up in a quarter of the time
  std::string append = "quiet";
  std::vector<std::string> more{};
  Input input = Input::Null;
  std::chrono::seconds limit{150};
};
constexpr std::chrono::seconds kAfterTheLimit{30};

const std::string& small_kernel() {
  static const auto kFile = kernel_directory({"small-6.1"}) + "/vmlinuz";
  return kFile;
}

std::vector<std::string> words_of(const Exec& exec, std::vector<std::string> more = {}) {
  const auto kernel = exec.small ? small_kernel() : guest_file(exec.kernel, "kernel/vmlinuz");
  std::vector<std::string> words{MARTLET_PROGRAM,
                                 "run",
                                 kernel,
                                 "-a",
                                 exec.append,
                                 "--exec",
                                 exec.command,
                                 "--timeout",
                                 fmt::format("{}s", exec.limit.count())};
  words.insert(words.end(), more.begin(), more.end());
  words.insert(words.end(), exec.more.begin(), exec.more.end());
  if (exec.more.empty() || exec.more.front() != "-i") {
    words.insert(words.end(), {"--root", exec.root.empty() ? guest_file(exec.kernel, "root") : exec.root});
  }
  return words;
}

class Running {
 public:
  explicit Running(const Exec& exec, Terminal* terminal = nullptr)
      : process_{{.command = words_of(exec, ending_options(directory_)),
                  .input = exec.input,
                  .terminal = terminal,
                  .deadline = exec.limit + kAfterTheLimit}} {}

  [[nodiscard]] Subprocess& process() noexcept { return process_; }
  Ended wait() {
    Ended ended{.outcome = process_.wait(), .verdict = {}, .bundle = {}};
    read_ending(directory_, ended);
    return ended;
  }

 private:
  TempDir directory_;
  Subprocess process_;
};

Ended run_in_guest(const Exec& exec) {
  Running running{exec};
  if (exec.input == Input::Pipe) {
    running.process().end_input();
  }
  return running.wait();
}

void expect_output(const Ended& ended, int code, std::string_view out, std::string_view err) {
  EXPECT_EQ(ended.outcome.exit_code, code) << ended;
  EXPECT_EQ(ended.outcome.out, out) << ended;
  EXPECT_EQ(ended.outcome.err, err) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "guest-exit") << ended;
}

/// `martlet` with its words as a shell's "$@", in `script`.
Outcome run_in_script(const Exec& exec, const std::string& script) {
  const TempDir directory;
  std::vector<std::string> words{"bash", "-c", script, "bash"};
  const auto ours = words_of(exec);
  words.insert(words.end(), ours.begin(), ours.end());
  return run({.command = std::move(words), .deadline = exec.limit + kAfterTheLimit});
}

/// A root with nothing but /busybox in it.
std::string bare_root(const TempDir& directory) {
  std::filesystem::create_directory(directory.file("root"));
  std::filesystem::copy_file(guest_file("cloud-6.1", "root/bin/busybox"), directory.file("root/busybox"));
  return directory.file("root");
}

/// 12 codes, or as many as MARTLET_EXEC_CODES says.
std::vector<int> codes() {
  if (const auto* most = std::getenv("MARTLET_EXEC_CODES")) {
    std::vector<int> all(static_cast<std::size_t>(std::atoi(most)));
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i] = static_cast<int>(i % 256);
    }
    return all;
  }
  return {0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 254, 255};
}

TEST(ExecStatus, IsExactWhateverStdinIs) {
  constexpr std::array<Input, 4> kInputs{Input::Null, Input::Pipe, Input::Closed, Input::Terminal};
  std::size_t count = 0;
  for (const int code : codes()) {
    // Each with the next kind of stdin; every 256 of them another one than before.
    const auto input = kInputs.at((count + count / 256) % kInputs.size());
    ++count;
    SCOPED_TRACE(fmt::format("code {}, stdin {}", code, static_cast<int>(input)));
    Terminal terminal;
    Running running{{.command = fmt::format("echo out; echo err >&2; exit {}", code), .small = true, .input = input},
                    input == Input::Terminal ? &terminal : nullptr};
    if (input == Input::Pipe) {
      running.process().end_input();
    }
    const auto before = terminal.settings();
    const auto ended = running.wait();
    expect_output(ended, code, "out\n", "err\n");
    EXPECT_EQ(ended.verdict["exit_code"], code);
    EXPECT_TRUE(same_settings(terminal.settings(), before));
  }
}

// The kernel says so before the command begins.
TEST(ExecStatus, CountsWhateverWasExpectedOfTheConsole) {
  auto ended = run_in_guest({.command = "exit 3", .append = "loglevel=7", .more = {"--expect", "Run /"}});
  EXPECT_EQ(ended.outcome.exit_code, 3) << ended;
  ended = run_in_guest({.command = "exit 0", .append = "loglevel=7", .more = {"--expect", "Run /"}});
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "expected-output");
}

TEST(ExecStatus, NamesTheSignal) {
  for (const auto& [name, number] : {std::pair{"KILL", SIGKILL}, {"SEGV", SIGSEGV}, {"TERM", SIGTERM}}) {
    const auto ended = run_in_guest({.command = fmt::format("echo before; kill -{} $$; echo after", name)});
    expect_output(ended, 128 + number, "before\n", "");
    EXPECT_EQ(ended.verdict["signal"], number);
    EXPECT_EQ(ended.verdict["detail"], fmt::format("SIG{} killed the command", name));
  }
}

TEST(ExecStatus, OfACommandThatCannotRunIsAsInAShell) {
  auto ended = run_in_guest({.command = "/no/such/program"});
  EXPECT_EQ(ended.outcome.exit_code, 127) << ended;
  ended = run_in_guest({.command = "/etc/passwd"});
  EXPECT_EQ(ended.outcome.exit_code, 126) << ended;
}

TEST(Exec, FindsASystemAsItShouldBe) {
  const auto ended = run_in_guest({.command = R"sh(
      for d in /proc /sys /dev /dev/pts /dev/shm; do grep -q " $d " /proc/mounts || echo no $d; done
      for f in /dev/null /dev/fd/1 /dev/stderr; do [ -e $f ] || echo no $f; done
      echo more >/tmp/file && mkdir -p /run/x || echo no room
      ping -c 1 -W 5 127.0.0.1 >/dev/null || echo no loopback
      echo text >/dev/stderr
      pwd; echo $HOME $FROM_HOST; umask; readlink /proc/1/exe
      cat)sh",
                                   .append = "quiet FROM_HOST=hello"});
  expect_output(ended, 0, "/\n/root hello\n0022\n/.martlet/init\n", "text\n");
}

// The drivers are modules there; and on MMIO.
TEST(Exec, LoadsTheDriversItNeeds) {
  expect_output(run_in_guest({.command = "echo here", .kernel = "cloud-6.1"}), 0, "here\n", "");
  expect_output(run_in_guest({.command = "echo here", .kernel = "cloud-6.1", .more = {"--transport", "mmio"}}), 0,
                "here\n", "");
}

TEST(Exec, RunsInAnInitrd) {
  expect_output(run_in_guest({.command = "ls -d /bin/busybox; exit 9",
                              .kernel = "cloud-6.1",
                              .more = {"-i", guest_file("cloud-6.1", "root.cpio.gz")}}),
                9, "/bin/busybox\n", "");
}

/// MARTLET_EXEC_MIB, else 4.
int mib() {
  const auto* text = std::getenv("MARTLET_EXEC_MIB");
  return text != nullptr ? std::atoi(text) : 4;
}

// To a reader that takes its time.
TEST(Exec, OutputIsBinaryCleanAndAllOfItComes) {
  const auto outcome =
      run_in_script({.command = fmt::format(
                         "mkfifo /tmp/f; sha256sum </tmp/f >&2 & dd if=/dev/urandom of=/tmp/r bs=1M count=4 2>/tmp/e;"
                         "i={}; while [ $i -gt 0 ]; do cat /tmp/r; i=$((i - 4)); done | tee /tmp/f; wait; exit 77",
                         mib()),
                     .limit = std::chrono::seconds{150 + 4 * mib()}},
                    R"sh(
      directory=$(mktemp -d)
      "$@" 2>"$directory/err" </dev/null | { sleep 12; head -c 100000; sleep 1; cat; } | sha256sum
      echo "${PIPESTATUS[0]}"
      cat "$directory/err"
      rm -r "$directory")sh");
  const auto sum = outcome.out.substr(0, 64);
  EXPECT_EQ(outcome.out, sum + "  -\n77\n" + sum + "  -\n") << outcome;
}

TEST(Exec, StdinComesThroughToItsEnd) {
  const auto outcome = run_in_script({.command = "sha256sum; cat; echo end >&2"}, R"sh(
      directory=$(mktemp -d)
      head -c 3000001 /dev/urandom >"$directory/in"
      sha256sum <"$directory/in"
      "$@" <"$directory/in"
      echo "$?"
      rm -r "$directory")sh");
  const auto sum = outcome.out.substr(0, 64);
  EXPECT_EQ(outcome.out, sum + "  -\n" + sum + "  -\n0\n") << outcome;
  EXPECT_EQ(outcome.err, "end\n");
}

TEST(Exec, StdinMayComeLateAndNeedNotBeRead) {
  Running running{{.command = "echo ready; read line; echo \"got $line\"", .input = Input::Pipe}};
  ASSERT_TRUE(running.process().wait_for("ready\n")) << running.wait();
  running.process().type("words\nthat nobody reads\n");
  expect_output(running.wait(), 0, "ready\ngot words\n", "");
}

TEST(Exec, WhatTheCommandLeavesRunningEndsWithIt) {
  expect_output(run_in_guest({.command = "sleep 1000 & (sleep 500; echo late) & setsid sleep 300 & echo now; exit 5"}),
                5, "now\n", "");
}

TEST(Exec, AReaderThatLeavesBreaksThePipe) {
  const auto outcome = run_in_script({.command = "yes"}, R"sh("$@" </dev/null | head -n 1; echo "${PIPESTATUS[0]}")sh");
  EXPECT_EQ(outcome.out, "y\n141\n") << outcome;
  EXPECT_EQ(outcome.err, "");
}

TEST(Exec, WithoutAShellWordsAreEnough) {
  const TempDir directory;
  const auto root = bare_root(directory);
  expect_output(run_in_guest({.command = "/busybox echo  one two", .root = root}), 0, "one two\n", "");
  expect_output(run_in_guest({.command = "echo one; echo two", .root = root}), 127, "",
                "martlet: the guest's root has no /bin/sh, and the command needs one\n");
  expect_output(run_in_guest({.command = "nonsense", .root = root}), 127, "",
                "martlet: cannot run nonsense: not found in the guest's root\n");
}

TEST(Exec, WithoutDriversItSaysWhatIsMissing) {
  const TempDir directory;
  const auto ended = run_in_guest({.command = "true", .kernel = "cloud-6.1", .root = bare_root(directory)});
  EXPECT_EQ(ended.outcome.exit_code, 125) << ended;
  EXPECT_EQ(ended.outcome.out, "");
  EXPECT_THAT(ended.outcome.err, HasSubstr("no virtio console driver"));
  EXPECT_THAT(ended.outcome.err, HasSubstr("CONFIG_VIRTIO_CONSOLE"));
  EXPECT_EQ(ended.verdict["verdict"], "exec-failed");
}

TEST(Exec, AGuestThatGoesAwayIsNoSuccess) {
  auto ended = run_in_guest({.command = "poweroff -f"});
  EXPECT_EQ(ended.outcome.exit_code, 126) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "exec-failed");
  ended = run_in_guest({.command = "echo c >/proc/sysrq-trigger"});
  EXPECT_EQ(ended.outcome.exit_code, 126) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "panic");
  EXPECT_THAT(ended.outcome.err, HasSubstr("the last of its console:\n"));
  EXPECT_THAT(ended.outcome.err, HasSubstr("entry_SYSCALL_64"));
  // Told by the log in its memory alone.
  ended = run_in_guest({.command = "echo c >/proc/sysrq-trigger", .append = "quiet console="});
  EXPECT_EQ(ended.outcome.exit_code, 126) << ended;
  EXPECT_EQ(ended.verdict["verdict"], "panic");
  EXPECT_THAT(std::string{ended.verdict["detail"]}, HasSubstr("sysrq triggered crash"));
}

TEST(Exec, OneSignalEndsIt) {
  Running running{{.command = "echo ready; sleep 1000"}};
  ASSERT_TRUE(running.process().wait_for("ready\n")) << running.wait();
  running.process().send_signal(SIGTERM);
  const auto ended = running.wait();
  EXPECT_EQ(ended.outcome.exit_code, 128 + SIGTERM) << ended;
}

}  // namespace
}  // namespace martlet::test
