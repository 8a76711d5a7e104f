// The examples, as a user runs them. These start the lab themselves where one is needed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/boot/guest.h"
#include "tests/support/subprocess.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

Subprocess::Config example(std::vector<std::string> command) {
  command[0].insert(0, MARTLET_EXAMPLES "/");
  return {.command = std::move(command),
          .environment = {{"MARTLET", MARTLET_PROGRAM}},
          .deadline = std::chrono::seconds{300}};
}

TEST(Example, BootDebianRunsCommandsOfAPipe) {
  auto config = example({"boot-debian", "-c", "2"});
  config.input = Subprocess::Input::Pipe;
  Subprocess process{std::move(config)};
  process.type("echo $((6*7))\nnproc\n(exit 3)\n");
  process.end_input();
  auto outcome = process.wait();
  std::erase(outcome.out, '\r');
  EXPECT_EQ(outcome.exit_code, 3) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("42\n2\n"));
  EXPECT_THAT(outcome.err, HasSubstr("with-kvm: ")) << "it says where it boots";
}

TEST(Example, BootDebianGivesATerminalItsShell) {
  Terminal terminal;
  auto config = example({"boot-debian"});
  config.input = Subprocess::Input::Terminal;
  config.output = Subprocess::Output::Terminal;
  config.terminal = &terminal;
  const auto before = terminal.settings();
  Subprocess process{std::move(config)};
  ASSERT_TRUE(process.wait_for("martlet-guest:/# ")) << process.wait();
  process.type("echo $((6*7))\r");
  EXPECT_TRUE(process.wait_for("\n42\r"));
  process.type("poweroff\r");
  const auto outcome = process.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome;
  EXPECT_TRUE(same_settings(terminal.settings(), before));
}

TEST(Example, CiBootTestEndsAsItsCommand) {
  const TempDir directory;
  auto config = example(
      {"ci-boot-test.sh", guest_file("cloud-6.1", "kernel/vmlinuz"), "grep -c processor /proc/cpuinfo; exit 3"});
  config.environment.emplace_back("RESULT", directory.file("verdict.json"));
  config.environment.emplace_back("TIMEOUT", "150s");  // its own 60 s are for machines of a CI
  const auto outcome = run(std::move(config));
  EXPECT_EQ(outcome.exit_code, 3) << outcome;
  const auto verdict = nlohmann::json::parse(read_file(directory.file("verdict.json")));
  EXPECT_EQ(verdict["verdict"], "guest-exit");
  EXPECT_EQ(verdict["exit_code"], 3);
}

TEST(Example, CiBootTestTellsAPanic) {
  const TempDir directory;
  auto config = example({"ci-boot-test.sh", guest_file("cloud-6.1", "kernel/vmlinuz"), "echo c > /proc/sysrq-trigger"});
  config.environment.emplace_back("RESULT", directory.file("verdict.json"));
  config.environment.emplace_back("TIMEOUT", "150s");  // its own 60 s are for machines of a CI
  const auto outcome = run(std::move(config));
  EXPECT_EQ(outcome.exit_code, 126) << outcome;
  EXPECT_EQ(nlohmann::json::parse(read_file(directory.file("verdict.json")))["verdict"], "panic");
}

TEST(Example, CiBootTestSkipsWhatIsNoKernel) {
  const TempDir directory;
  auto config = example({"ci-boot-test.sh", MARTLET_EXAMPLES "/ci-boot-test.sh"});
  config.environment.emplace_back("RESULT", directory.file("verdict.json"));
  config.environment.emplace_back("TIMEOUT", "150s");  // its own 60 s are for machines of a CI
  const auto outcome = run(std::move(config));
  EXPECT_EQ(outcome.exit_code, 125) << outcome;
}

}  // namespace
}  // namespace martlet::test
