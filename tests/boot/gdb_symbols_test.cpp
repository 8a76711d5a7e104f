// Stock gdb and kernels whose debug symbols it has: a small one, built of Debian's source with its own scripts for gdb,
// and (long) Debian's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "tests/boot/gdb_session.h"

namespace martlet::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

/// A kernel with its debug symbols, which tools/kernels has fetched or built before the lab began.
class KernelDebugSymbols : public GdbSession {
 protected:
  /// Runs `script` by a shell of busybox's in the guest.
  [[nodiscard]] std::unique_ptr<Subprocess> start(const std::string& kernel, const std::string& script,
                                                  const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command{MARTLET_PROGRAM,
                                     "run",
                                     kernel + "/vmlinuz",
                                     "--root",
                                     guest_file("cloud-6.1", "root"),
                                     "-c",
                                     "2",
                                     "-m",
                                     "256M",
                                     "-a",
                                     "quiet",
                                     "--gdb",
                                     "unix:" + socket(),
                                     "--timeout",
                                     "150s",
                                     "--exec",
                                     script};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<Subprocess>(Subprocess::Config{
        .command = std::move(command), .input = Subprocess::Input::Pipe, .deadline = std::chrono::seconds{180}});
  }

  // KASLR is on, and nobody tells gdb where the kernel is.
  void unwind(const std::string& kernel, const std::string& vmlinux) const {
    const auto guest = start(kernel, "echo READY; read line; echo GO; while :; do read line < /proc/version; done");
    ASSERT_TRUE(guest->wait_for("READY")) << guest->wait();
    guest->type("x\n");
    ASSERT_TRUE(guest->wait_for("GO")) << guest->wait();
    const auto said = run(gdb(vmlinux, {"monitor info kaslr", "print linux_banner", "print init_task.comm",
                                        "break version_proc_show", "continue", "bt", "frame function ksys_read",
                                        "print count", "delete", "hbreak ksys_read if count == 1", "continue", "finish",
                                        "delete", "watch jiffies_64", "continue", "info threads", "monitor quit"}));
    SCOPED_TRACE(::testing::Message() << said);
    EXPECT_THAT(said.err, ContainsRegex("KASLR offset 0x[0-9a-f]+"));
    EXPECT_THAT(said.out, HasSubstr("<linux_banner> \"Linux version 6.1."));
    EXPECT_THAT(said.out, HasSubstr("\"swapper/0"));
    EXPECT_THAT(said.out, ContainsRegex("hit Breakpoint 1, version_proc_show \\(m=0x"));
    EXPECT_THAT(said.out, ContainsRegex("\n#1 [^\n]* seq_read_iter \\([^\n]*fs/seq_file.c:[0-9]+\n"));
    EXPECT_THAT(said.out,
                ContainsRegex("\n#[0-9]+ [^\n]* ksys_read \\(fd=[^\n]*, count=1\\) at [^\n]*fs/read_write.c:[0-9]+\n"));
    EXPECT_THAT(said.out, ContainsRegex("\n#[0-9]+ [^\n]*do_syscall_64 \\("));
    EXPECT_THAT(said.out, ContainsRegex("\n#[0-9]+ [^\n]* entry_SYSCALL_64 \\([^\n]*\n")) << "and no further than that";
    EXPECT_THAT(said.out, ContainsRegex("\\$[0-9]+ = 1\n")) << "count";
    EXPECT_THAT(said.out, ContainsRegex("hit Breakpoint 2, ksys_read \\(fd="));
    EXPECT_THAT(said.out, ContainsRegex("Value returned is \\$[0-9]+ = [01]\n"));
    EXPECT_THAT(said.out,
                ContainsRegex("Hardware watchpoint 3: jiffies_64\n\nOld value = [0-9]+\nNew value = [0-9]+\n"));
    EXPECT_THAT(said.out, ContainsRegex("Thread 2 \\(vCPU 1: "));
  }
};

class SmallKernel : public KernelDebugSymbols {};

TEST_F(SmallKernel, IsUnwoundToItsFirstFrameWhereverItIs) {
  const auto kernel = kernel_directory({"small-6.1"});
  unwind(kernel, kernel + "/vmlinux");
}

TEST_F(SmallKernel, IsReadByItsOwnScripts) {
  const auto kernel = kernel_directory({"small-6.1"});
  const auto guest = start(kernel, "echo READY; while :; do :; done", {"--nokaslr"});
  ASSERT_TRUE(guest->wait_for("READY")) << guest->wait();
  const auto said = run(gdb(kernel + "/vmlinux",
                            {"source " + kernel + "/vmlinux-gdb.py", "lx-version", "lx-cmdline", "lx-dmesg", "lx-ps",
                             "print $lx_current().comm", "print $lx_per_cpu(\"runqueues\", 1).cpu", "monitor quit"}));
  SCOPED_TRACE(::testing::Message() << said);
  EXPECT_THAT(said.out, ContainsRegex("\nLinux version 6.1.")) << "lx-version";
  EXPECT_THAT(said.out, HasSubstr("console=")) << "lx-cmdline";
  EXPECT_THAT(said.out, ContainsRegex("\n\\[ *[0-9.]+\\] smp: Brought up 1 node, 2 CPUs\n")) << "lx-dmesg";
  EXPECT_THAT(said.out, ContainsRegex("\n0x[0-9a-f]+ +0 +swapper/0\n")) << "lx-ps";
  EXPECT_THAT(said.out, ContainsRegex("\n0x[0-9a-f]+ +[0-9]+ +kthreadd\n")) << "lx-ps";
  // Whatever runs at that moment, often a kernel thread on a busy machine, is in the list of tasks as well.
  std::smatch current;
  ASSERT_TRUE(std::regex_search(said.out, current, std::regex("\n\\$1 = \"([^\"\\\\]+)"))) << "$lx_current()";
  EXPECT_THAT(said.out, HasSubstr(" " + current[1].str() + "\n")) << "$lx_current() is none of lx-ps's";
  EXPECT_THAT(said.out, HasSubstr("$2 = 1\n")) << "$lx_per_cpu()";
}

class DebianKernel : public KernelDebugSymbols {};

TEST_F(DebianKernel, IsUnwoundToItsFirstFrameWhereverItIs) {
  unwind(kernel_directory({"cloud-6.1"}), kernel_directory({"--symbols", "cloud-6.1"}));
}

}  // namespace
}  // namespace martlet::test
