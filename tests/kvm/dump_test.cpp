// martlet dump: a bundle of a VM that runs on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

constexpr const char* kEnd = "\x04";

/// A guest that echoes, until it is told to end.
Subprocess::Config echo(std::vector<std::string> options) {
  options.insert(options.end(), {"-m", "16M"});
  return {.command = martlet_command({.name = "echo", .options = std::move(options)}),
          .input = Subprocess::Input::Pipe};
}

/// Of a VM, whose names all of the host's users share.
std::string unique(std::string_view what) {
  return "martlet-test-" + std::to_string(::getpid()) + "-" + std::string{what};
}

Outcome dump(std::vector<std::string> words, const std::string& directory = {}) {
  words.insert(words.begin(), {MARTLET_PROGRAM, "dump"});
  return run({.command = std::move(words), .directory = directory});
}

void expect_refusal(const Outcome& ended, std::string_view says) {
  EXPECT_EQ(ended.exit_code, 125) << ended;
  EXPECT_EQ(ended.out, "") << ended;
  EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended;
  EXPECT_THAT(ended.err, HasSubstr(std::string{says}));
}

TEST(Dump, ByNameOrPidAndTheVmRunsOn) {
  const TempDir directory;
  const auto name = unique("dump");
  Subprocess vmm{echo({"--name", name})};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  const auto bundle = directory.file("with,comma");
  const auto by_name = dump({name, "-o", directory.file("with,,comma")});
  EXPECT_EQ(by_name.exit_code, 0) << by_name;
  EXPECT_EQ(by_name.out, bundle + "\n");
  EXPECT_THAT(read_file(bundle + "/console.log"), HasSubstr("ready")) << "also without --bundle";
  EXPECT_THAT(read_file(bundle + "/cpus.txt"), HasSubstr("vCPU 0:"));
  EXPECT_GT(std::filesystem::file_size(bundle + "/vmcore"), std::size_t{16} << 20U);
  EXPECT_FALSE(std::filesystem::exists(bundle + "/verdict.json"));
  const auto pid = std::to_string(vmm.pid());
  const auto by_pid = dump({pid}, directory.path());
  EXPECT_EQ(by_pid.exit_code, 0) << by_pid;
  EXPECT_TRUE(std::filesystem::exists(directory.file("martlet-dump-" + pid + "/vmcore")));
  vmm.type("x");
  ASSERT_TRUE(vmm.wait_for("x")) << vmm.wait();
  vmm.type(kEnd);
  const auto ended = vmm.wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_EQ(ended.err, "") << "its own terminal is left in peace";
}

TEST(Dump, CompressedIsTheSame) {
  const TempDir directory;
  Subprocess vmm{{.command = martlet_command({.name = "halt", .append = "until=dead", .options = {"-m", "16M"}})}};
  ASSERT_TRUE(vmm.wait_for("asleep\n")) << vmm.wait();
  const auto pid = std::to_string(vmm.pid());
  const auto raw = directory.file("raw");
  const auto zstd = directory.file("zstd");
  // The first time, its CPU may not sleep yet.
  EXPECT_TRUE(vmm.wait_until([&] {
    EXPECT_EQ(dump({pid, "-o", raw}).exit_code, 0);
    EXPECT_EQ(dump({pid, "-o", zstd + ",vmcore=zstd"}).exit_code, 0);
    EXPECT_EQ(run({.command = {"zstd", "-dqf", zstd + "/vmcore.zst"}}).exit_code, 0);
    return run({.command = {"cmp", raw + "/vmcore", zstd + "/vmcore"}}).exit_code == 0;
  }));
  EXPECT_LT(std::filesystem::file_size(zstd + "/vmcore.zst"), std::size_t{1} << 20U);
  EXPECT_THAT(read_file(zstd + "/README.txt"), HasSubstr("zstd -d vmcore.zst"));
  const auto none = directory.file("none");
  EXPECT_EQ(dump({pid, "-o", none + ",vmcore=none"}).exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(none + "/cpus.txt"));
  EXPECT_FALSE(std::filesystem::exists(none + "/vmcore"));
}

TEST(Dump, WhatCannotBeDumpedIsSaidInOneLine) {
  const TempDir directory;
  expect_refusal(dump({std::to_string(::getpid())}), "no VM " + std::to_string(::getpid()) + " runs here");
  expect_refusal(dump({"martlet-test-nobody"}), "no VM martlet-test-nobody runs here");
  expect_refusal(dump({}), "VM is required");
  const auto twin = unique("twin");
  Subprocess one{echo({"--name", twin})};
  Subprocess two{echo({"--name", twin})};
  ASSERT_TRUE(one.wait_for("ready\n") && two.wait_for("ready\n"));
  expect_refusal(dump({twin}), std::to_string(two.pid()));
  expect_refusal(dump({"martlet-test-nobody"}), twin + " (" + std::to_string(two.pid()) + ")");
  const auto pid = std::to_string(one.pid());
  expect_refusal(dump({pid, "-o", "/proc/nowhere"}), "cannot make the bundle's directory /proc/nowhere");
  expect_refusal(dump({pid, "-o", directory.file("x") + ",vmcore=lzma"}), "none of raw, zstd, none");
  one.type(kEnd);
  two.type(kEnd);
  EXPECT_EQ(one.wait().exit_code, 0);
  EXPECT_EQ(two.wait().exit_code, 0);
  expect_refusal(dump({pid}), "no VM " + pid + " runs here");
}

TEST(Dump, AVmThatEndsMeanwhileIsSaid) {
  Subprocess vmm{echo({})};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  vmm.send_signal(SIGSTOP);
  const auto pid = std::to_string(vmm.pid());
  Subprocess dumping{{.command = {"sh", "-c", "echo asks; exec \"$0\" dump " + pid, MARTLET_PROGRAM}}};
  ASSERT_TRUE(dumping.wait_for("asks\n"));
  ::usleep(
      200'000);  // not in time to ask? Then it finds no VM, or one that has just ended: its PID is named all the same
  vmm.send_signal(SIGKILL);
  const auto ended = dumping.wait();
  EXPECT_EQ(ended.exit_code, 125) << ended;
  EXPECT_THAT(ended.err, HasSubstr(pid));
}

TEST(Dump, SomebodyElsesIsNot) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs another user";
  }
  Subprocess vmm{echo({})};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  const auto pid = std::to_string(vmm.pid());
  expect_refusal(run({.command = {"setpriv", "--reuid", "65534", "--clear-groups", MARTLET_PROGRAM, "dump", pid, "-o",
                                  "/tmp/martlet-not-mine"}}),
                 "VM " + pid + " is root's");
  vmm.type(kEnd);
  EXPECT_EQ(vmm.wait().exit_code, 0);
}

}  // namespace
}  // namespace martlet::test
