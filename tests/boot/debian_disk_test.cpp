// examples/debian-disk, as a user runs it: Debian from a virtio disk, with systemd, network and a login.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/subprocess.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

Subprocess::Config debian_disk() {
  return {.command = {MARTLET_EXAMPLES "/debian-disk", "-c", "2", "-m", "1G"},
          .environment = {{"MARTLET", MARTLET_PROGRAM}},
          .deadline = std::chrono::seconds{420}};
}

TEST(DebianDisk, RunsTheLinesOfAPipe) {
  auto config = debian_disk();
  config.input = Subprocess::Input::Pipe;
  Subprocess process{std::move(config)};
  process.type(
      "echo system is $(systemctl is-system-running --wait)\n"
      "echo failed: $(systemctl --failed --no-legend | wc -l)\n"
      "ping -c 2 -W 5 192.168.77.1\n"
      "echo root on $(findmnt -no SOURCE,FSTYPE /)\n"
      "echo oopses: $(dmesg | grep -c 'Call Trace')\n"
      "exit 7\n");
  process.end_input();
  auto outcome = process.wait();
  std::erase(outcome.out, '\r');
  EXPECT_EQ(outcome.exit_code, 7) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("system is running\n"));
  EXPECT_THAT(outcome.out, HasSubstr("failed: 0\n"));
  EXPECT_THAT(outcome.out, HasSubstr(" 0% packet loss"));
  EXPECT_THAT(outcome.out, HasSubstr("root on /dev/vda ext4\n"));
  EXPECT_THAT(outcome.out, HasSubstr("oopses: 0\n"));
}

TEST(DebianDisk, LogsInOnATerminal) {
  Terminal terminal;
  const auto before = terminal.settings();
  auto config = debian_disk();
  config.input = Subprocess::Input::Terminal;
  config.output = Subprocess::Output::Terminal;
  config.terminal = &terminal;
  Subprocess process{std::move(config)};
  ASSERT_TRUE(process.wait_for("martlet login: ")) << process.wait();
  process.type("root\r");
  ASSERT_TRUE(process.wait_for("root@martlet:~# ")) << process.wait();
  process.type("echo on $(tty) $(systemctl is-system-running --wait)\r");
  EXPECT_TRUE(process.wait_for("on /dev/hvc0 running"));
  process.type("poweroff\r");
  const auto outcome = process.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome;
  EXPECT_TRUE(same_settings(terminal.settings(), before));
}

}  // namespace
}  // namespace martlet::test
