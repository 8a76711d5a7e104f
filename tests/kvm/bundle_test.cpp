// What --bundle and SIGQUIT leave of a machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

TEST(Bundle, OfAFailureHoldsAllThatIsKnown) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  const auto guest =
      run_martlet({.name = "spin", .options = {"-c", "2", "-m", "64M", "--timeout", "3s", "--bundle", bundle}});
  EXPECT_EQ(guest.exit_code, 124) << guest;
  EXPECT_THAT(guest.err, HasSubstr("wrote " + bundle));
  const auto read = [&](std::string_view name) { return read_file(bundle + "/" + std::string{name}); };
  EXPECT_EQ(read("console.log"), guest.out);
  EXPECT_EQ(nlohmann::json::parse(read("verdict.json")).value("verdict", ""), "timeout");
  EXPECT_THAT(read("cpus.txt"), HasSubstr("vCPU 1:"));
  EXPECT_THAT(read("cpus.txt"), HasSubstr("RIP"));
  EXPECT_THAT(read("exits.txt"), HasSubstr("uart"));
  EXPECT_THAT(read("stats.txt"), HasSubstr("exits to user space"));
  EXPECT_THAT(read("README.txt"), HasSubstr("--timeout 3s"));
  std::ifstream core{bundle + "/vmcore", std::ios::binary};
  std::string magic(4, '\0');
  core.read(magic.data(), 4);
  EXPECT_EQ(magic, "\177ELF");
  EXPECT_GT(std::filesystem::file_size(bundle + "/vmcore"), std::size_t{64} << 20U) << "all of RAM, though sparse";
}

TEST(Bundle, CompressesItsVmcoreOnRequest) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  const auto guest = run_martlet(
      {.name = "reset", .append = "by=triple", .options = {"-m", "16M", "--bundle", bundle + ",vmcore=zstd"}});
  EXPECT_EQ(guest.exit_code, 126) << guest;
  EXPECT_EQ(run({.command = {"zstd", "-dq", bundle + "/vmcore.zst"}}).exit_code, 0);
  EXPECT_EQ(read_file(bundle + "/vmcore").substr(0, 4), "\177ELF");
}

TEST(Bundle, KeepsTheLastThousandExitsOfEachCpu) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  const auto guest = run_martlet(
      {.name = "flood", .append = "bytes=4096 then=fault", .options = {"--bundle", bundle + ",vmcore=none"}});
  EXPECT_EQ(guest.exit_code, 126) << guest;
  std::istringstream exits{read_file(bundle + "/exits.txt")};
  std::string line;
  std::getline(exits, line);
  EXPECT_THAT(line, HasSubstr(" exits, the last 1000:"));
  double before = 0;
  std::size_t count = 0;
  std::string last;
  for (; std::getline(exits, line); ++count, last = line) {
    EXPECT_GE(std::stod(line), before) << line;
    before = std::stod(line);
  }
  EXPECT_EQ(count, 1000);
  EXPECT_THAT(last, HasSubstr("shutdown")) << "the triple fault";
}

TEST(Bundle, HoldsNothingOfAnotherRun) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  std::filesystem::create_directory(bundle);
  for (const char* name : {"dmesg.txt", "vmcore.zst", "mine"}) {
    std::ofstream{bundle + "/" + name} << "old\n";
  }
  const auto guest =
      run_martlet({.name = "reset", .append = "by=triple", .options = {"-m", "16M", "--bundle", bundle}});
  EXPECT_EQ(guest.exit_code, 126) << guest;
  EXPECT_FALSE(std::filesystem::exists(bundle + "/dmesg.txt")) << "this guest has none";
  EXPECT_FALSE(std::filesystem::exists(bundle + "/vmcore.zst"));
  EXPECT_TRUE(std::filesystem::exists(bundle + "/vmcore"));
  EXPECT_EQ(read_file(bundle + "/mine"), "old\n") << "not ours";
}

TEST(Bundle, ItsSymbolsFileIsTriedBeforeTheGuestRuns) {
  const auto guest = run_martlet({.name = "power_off", .options = {"--vmlinux", "/nonexistent"}});
  EXPECT_EQ(guest.exit_code, 125) << guest;
  EXPECT_EQ(guest.out, "");
  EXPECT_EQ(std::ranges::count(guest.err, '\n'), 1) << guest.err;
  EXPECT_THAT(guest.err, HasSubstr("/nonexistent"));
}

TEST(Bundle, ASymbolsFileThatIsNoneCostsNothingElse) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  const auto symbols = directory.file("System.map");
  std::ofstream{symbols} << "no symbols\n";
  const auto guest = run_martlet(
      {.name = "reset", .append = "by=triple", .options = {"-m", "16M", "--vmlinux", symbols, "--bundle", bundle}});
  EXPECT_EQ(guest.exit_code, 126) << guest;
  EXPECT_THAT(guest.err, HasSubstr("wrote " + bundle));
  EXPECT_THAT(read_file(bundle + "/README.txt"), HasSubstr("note: " + symbols + " holds no kernel symbols"));
  EXPECT_THAT(read_file(bundle + "/cpus.txt"), HasSubstr("vCPU 0:"));
  EXPECT_TRUE(std::filesystem::exists(bundle + "/vmcore"));
}

TEST(Bundle, OfAGoodEndThereIsNone) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  EXPECT_EQ(run_martlet({.name = "power_off", .options = {"--bundle", bundle}}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(bundle));
}

TEST(Bundle, WhereNoneCanBeIsSaidAndTheVerdictStays) {
  const auto guest = run_martlet({.name = "reset", .append = "by=triple", .options = {"--bundle", "/proc/nowhere"}});
  EXPECT_EQ(guest.exit_code, 126) << guest;
  EXPECT_THAT(guest.err, HasSubstr("/proc/nowhere"));
}

TEST(Bundle, SigquitMakesOneWhileTheGuestGoesOn) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  Subprocess vmm{{.command = martlet_command({.name = "echo", .options = {"-m", "16M", "--bundle", bundle}}),
                  .input = Subprocess::Input::Pipe}};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  for (const char* number : {"1", "2"}) {
    vmm.send_signal(SIGQUIT);
    ASSERT_TRUE(vmm.wait_for_error("wrote " + bundle + "." + number)) << vmm.wait();
    EXPECT_TRUE(std::filesystem::exists(bundle + "." + number + "/vmcore"));
    EXPECT_FALSE(std::filesystem::exists(bundle + "." + number + "/verdict.json"));
    vmm.type("x");
    ASSERT_TRUE(vmm.wait_for("x")) << vmm.wait();
  }
  vmm.type("\x04");
  EXPECT_EQ(vmm.wait().exit_code, 2);
}

}  // namespace
}  // namespace martlet::test
