// The serial console, wherever it leads: nothing is lost, and nobody who does not read it stops the guest.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "tests/kvm/martlet.h"
#include "tests/support/line.h"
#include "vmm/base/error.h"

namespace martlet::test {
namespace {

using Input = Subprocess::Input;
using Output = Subprocess::Output;

constexpr char kEndOfTransmission = 4;
constexpr std::size_t kFlood = 65536;

std::string lines_of(std::size_t bytes) {
  std::string text;
  for (int line = 0; text.size() < bytes; ++line) {
    text += "line " + std::to_string(line) + " of what is typed\n";
  }
  text.resize(bytes);
  return text;
}

// --- Input.

class SerialInput : public testing::TestWithParam<const char*> {};

TEST_P(SerialInput, ComesBack) {
  Subprocess vmm{{.command = martlet_command({.name = "echo", .append = GetParam()}), .input = Input::Pipe}};
  ASSERT_TRUE(vmm.wait_for("ready\n")) << vmm.wait();
  vmm.type("hello");
  ASSERT_TRUE(vmm.wait_for("hello")) << vmm.wait();
  vmm.type(std::string{" again"} + kEndOfTransmission);
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.out, "ready\nhello again\n") << guest;
  EXPECT_EQ(guest.exit_code, 11) << guest;
}

TEST_P(SerialInput, ThatWaitedBeforeTheGuestDidIsNotLost) {
  Subprocess vmm{{.command = martlet_command({.name = "echo", .append = GetParam()}), .input = Input::Pipe}};
  vmm.type(std::string{"early"} + kEndOfTransmission);
  vmm.end_input();
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.out, "ready\nearly\n") << guest;
}

TEST_P(SerialInput, InBulkArrivesWholeAndInOrder) {
  const auto text = lines_of(8000);
  Subprocess vmm{{.command = martlet_command({.name = "echo", .append = GetParam()}), .input = Input::Pipe}};
  vmm.type(text + kEndOfTransmission);
  vmm.end_input();
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.out, "ready\n" + text + "\n");
  EXPECT_EQ(guest.exit_code, 8000 % 256) << guest;
}

INSTANTIATE_TEST_SUITE_P(All, SerialInput, testing::Values("by=poll", "by=interrupt"),
                         [](const auto& instance) { return std::string{instance.param}.substr(3); });

TEST(Stdin, ThatEndsDoesNotEndTheGuest) {
  Subprocess vmm{{.command = martlet_command({.name = "halt", .append = "until=timer"}), .input = Input::Pipe}};
  vmm.end_input();
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 7) << guest;
}

TEST(Stdin, MayBeClosedOrNothing) {
  for (const auto input : {Input::Closed, Input::Null}) {
    const auto guest = run({.command = martlet_command({.name = "halt", .append = "until=timer"}), .input = input});
    EXPECT_EQ(guest.exit_code, 7) << guest;
    EXPECT_EQ(guest.out, "asleep\nawake\n");
    EXPECT_EQ(guest.err, "");
  }
}

TEST(Stdin, MayBeAFile) {
  const TempDir directory;
  const auto path = directory.file("input");
  {
    const auto file = open_file(path, O_WRONLY | O_CREAT, 0600);
    const auto text = lines_of(1000) + kEndOfTransmission;
    ASSERT_EQ(::write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  const auto guest = run({.command = {"sh", "-c", R"(exec "$0" run "$1" -a by=interrupt < "$2")", MARTLET_PROGRAM,
                                      guest_file("echo"), path}});
  EXPECT_EQ(guest.out, "ready\n" + lines_of(1000) + "\n") << guest;
}

// --- Output.

class SerialOutput : public testing::TestWithParam<const char*> {};

TEST_P(SerialOutput, ArrivesWholeHoweverTheGuestEnds) {
  for (const auto& [ending, exit_code] : {std::pair{"then=exit", 5}, {"then=off", 0}, {"then=fault", 126}}) {
    const auto guest =
        run({.command = martlet_command({.name = "flood", .append = std::string{GetParam()} + " " + ending})});
    EXPECT_EQ(guest.exit_code, exit_code) << guest;
    EXPECT_EQ(guest.out.size(), kFlood);
    EXPECT_TRUE(guest.out == flood(kFlood)) << ending;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SerialOutput, testing::Values("by=poll", "by=write", "by=string"),
                         [](const auto& instance) { return std::string{instance.param}.substr(3); });

TEST(Stdout, ArrivesWholeWhenTheTimeoutOrASignalEndsTheGuest) {
  const auto guest = run_martlet({.name = "flood", .append = "by=string then=halt", .options = {"--timeout", "4s"}});
  EXPECT_EQ(guest.exit_code, 124) << guest;
  EXPECT_TRUE(guest.out == flood(kFlood));

  Subprocess vmm{{.command = martlet_command({.name = "flood", .append = "then=halt"})}};
  ASSERT_TRUE(vmm.wait_for("\n0000000f"));
  vmm.send_signal(SIGTERM);
  ASSERT_TRUE(vmm.wait_for_error("power button"));
  vmm.send_signal(SIGTERM);
  const auto killed = vmm.wait();
  EXPECT_EQ(killed.exit_code, 128 + SIGTERM) << killed;
  EXPECT_TRUE(flood(kFlood).starts_with(killed.out)) << killed;
}

TEST(Stdout, ThatNobodyReadsDoesNotStopTheGuest) {
  const auto guest = run({.command = martlet_command({.name = "flood"}), .output = Output::Unread});
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_TRUE(flood(kFlood).starts_with(guest.out)) << guest;
  EXPECT_NE(guest.err.find("bytes of console output lost"), std::string::npos) << guest;
}

TEST(Stdout, ThatNobodyReadsLosesWhatDoesNotFitAndSaysSo) {
  const auto guest = run(
      {.command = martlet_command({.name = "flood", .append = "by=string bytes=1048576"}), .output = Output::Unread});
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_NE(guest.err.find("bytes of console output lost"), std::string::npos) << guest;
}

TEST(Stdout, WhoseReaderGoesAwayDoesNotStopTheGuest) {
  // More than a pipe holds, however long we take to go.
  Subprocess vmm{{.command = martlet_command({.name = "flood", .append = "by=string bytes=1048576"})}};
  ASSERT_TRUE(vmm.wait_for("\n00000002")) << vmm.wait();
  vmm.hang_up();
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.signal, 0) << guest;
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_NE(guest.err.find("serial output went nowhere"), std::string::npos) << guest;
}

TEST(Stdout, MayBeClosedFullOrNothing) {
  EXPECT_EQ(run({.command = martlet_command({.name = "flood"}), .output = Output::Closed}).exit_code, 5);
  EXPECT_EQ(run({.command = martlet_command({.name = "flood"}), .output = Output::Null}).exit_code, 5);
  const auto full =
      run({.command = martlet_command({.name = "flood"}), .output = Output::File, .output_file = "/dev/full"});
  EXPECT_EQ(full.exit_code, 5) << full;
  EXPECT_NE(full.err.find("No space left on device"), std::string::npos) << full;
}

// --- Other places.

TEST(SerialFile, HoldsTheOutputAndNothingOlder) {
  const TempDir directory;
  const auto path = directory.file("console");
  {
    const auto file = open_file(path, O_WRONLY | O_CREAT, 0600);
    const auto old = lines_of(2 * kFlood);
    ASSERT_EQ(::write(file.get(), old.data(), old.size()), static_cast<ssize_t>(old.size()));
  }
  const auto guest = run_martlet({.name = "flood", .options = {"--serial", "file=" + path}});
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_EQ(guest.out, "");
  EXPECT_TRUE(read_file(path) == flood(kFlood));
}

TEST(SerialFile, ThatIsFullDoesNotStopTheGuest) {
  const auto guest = run_martlet({.name = "flood", .options = {"--serial", "file=/dev/full"}});
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_NE(guest.err.find("/dev/full"), std::string::npos) << guest;
}

TEST(SerialNull, SwallowsAll) {
  const auto guest = run_martlet({.name = "flood", .options = {"--serial", "null"}});
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_EQ(guest.out, "");
}

TEST(SerialPty, IsATerminalForTheUserToOpen) {
  Subprocess vmm{
      {.command = martlet_command({.name = "echo", .append = "by=interrupt", .options = {"--serial", "pty"}})}};
  ASSERT_TRUE(vmm.wait_for_error("the serial console is /dev/pts/"));
  ASSERT_TRUE(vmm.wait_for_error("\n"));
  const auto at = vmm.err().find("/dev/pts/");
  Line line{open_file(vmm.err().substr(at, vmm.err().find_first_of("\r\n", at) - at), O_RDWR | O_NOCTTY)};
  ASSERT_TRUE(line.wait_for("ready\n"));
  line.type("hello");
  EXPECT_TRUE(line.wait_for("hello"));
  line.type(std::string(1, kEndOfTransmission));
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 5) << guest;
  EXPECT_EQ(line.seen(), "ready\nhello");  // once: no echo but the guest's
  EXPECT_EQ(guest.out, "");
}

TEST(SerialSocket, ServesOneClientAfterAnother) {
  const TempDir directory;
  const auto path = directory.file("console");
  Subprocess vmm{{.command = martlet_command(
                      {.name = "echo", .append = "by=interrupt", .options = {"--serial", "socket=" + path}})}};
  {
    Line first{connect_to(path)};
    ASSERT_TRUE(first.wait_for("ready\n"));  // printed before anybody was there
    first.type("hello");
    EXPECT_TRUE(first.wait_for("hello"));
  }
  Line second{connect_to(path)};
  second.type("again");
  EXPECT_TRUE(second.wait_for("again"));
  second.type(std::string(1, kEndOfTransmission));
  const auto guest = vmm.wait();
  EXPECT_EQ(guest.exit_code, 10) << guest;
  EXPECT_EQ(directory.entries(), std::vector<std::string>{});  // its file goes with it
}

TEST(SerialSocket, LeftByAVmThatWasKilledIsTakenOver) {
  const TempDir directory;
  const auto path = directory.file("console");
  const Guest guest{.name = "halt", .append = "until=never", .options = {"--serial", "socket=" + path}};
  {
    Subprocess killed{{.command = martlet_command(guest)}};
    Line line{connect_to(path)};
    ASSERT_TRUE(line.wait_for("asleep\n"));
    killed.send_signal(SIGKILL);
    EXPECT_EQ(killed.wait().signal, SIGKILL);
  }
  const Subprocess next{{.command = martlet_command(guest)}};
  Line line{connect_to(path)};
  EXPECT_TRUE(line.wait_for("asleep\n"));
}

}  // namespace
}  // namespace martlet::test
