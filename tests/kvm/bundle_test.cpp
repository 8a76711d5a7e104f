// What --bundle and SIGQUIT leave of a machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

TEST(Bundle, OfAFailureHoldsAllThatIsKnown) {
  const TempDir directory;
  const auto bundle = directory.file("bundle");
  const auto guest =
      run_martlet({.name = "spin", .options = {"-c", "2", "-m", "64M", "--timeout", "500ms", "--bundle", bundle}});
  EXPECT_EQ(guest.exit_code, 124) << guest;
  EXPECT_THAT(guest.err, HasSubstr("wrote " + bundle));
  const auto read = [&](std::string_view name) { return read_file(bundle + "/" + std::string{name}); };
  EXPECT_EQ(read("console.log"), guest.out);
  EXPECT_EQ(nlohmann::json::parse(read("verdict.json")).value("verdict", ""), "timeout");
  EXPECT_THAT(read("cpus.txt"), HasSubstr("vCPU 1:"));
  EXPECT_THAT(read("cpus.txt"), HasSubstr("RIP"));
  EXPECT_THAT(read("exits.txt"), HasSubstr("uart"));
  EXPECT_THAT(read("stats.txt"), HasSubstr("exits to user space"));
  EXPECT_THAT(read("README.txt"), HasSubstr("--timeout 500ms"));
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
