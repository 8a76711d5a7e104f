// Ports that lead to our own stdin, stdout and stderr: the guest learns when one of them has ended.
#include <fmt/format.h>

#include "tests/unit/console_support.h"

namespace martlet::virtio {
namespace {

/// One of our descriptors is another one for as long as this lives.
class Instead {
 public:
  Instead(int ours, int other) : ours_{ours}, saved_{duplicate(ours)} { check(::dup2(other, ours), "dup2"); }
  Instead(const Instead&) = delete;
  Instead& operator=(const Instead&) = delete;
  ~Instead() { ::dup2(saved_.get(), ours_); }

 private:
  int ours_;
  Fd saved_;
};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    check(::pipe2(ends.data(), O_CLOEXEC), "pipe");
    read = Fd{ends[0]};
    write = Fd{ends[1]};
  }
  Fd read;
  Fd write;
};

struct ConsoleOneWay : ConsoleTest {
  /// A port that leads nowhere, and one that does, open at both ends.
  void make_port(SerialTarget::Kind kind, ConsolePort::Hooks port_hooks = {}) {
    std::vector<ConsolePort::Hooks> told(1);
    told.push_back(std::move(port_hooks));
    make_ports({{.name = "null"}, {.name = "stream", .target = {.kind = kind, .path = {}}}}, std::move(told));
  }
  void open_port() {
    start(kConsoleMultiport);
    say(~0U, kDeviceReady, 1);
    EXPECT_EQ(hear(), "0 1 1");
    EXPECT_EQ(hear(), "1 1 1");
    say(1, kPortReady, 1);
    EXPECT_EQ(hear(), "1 7 1");
  }
  /// Only who has a buffer for more learns that there is none.
  void ask_for_more() {
    driver.chain(kAgentIn).writable(64).submit();
    kick(kAgentIn);
  }
  void say(std::uint32_t port, std::uint16_t event, std::uint16_t value) {
    driver.chain(kControlOut).readable(ConsoleMessage{.port = port, .event = event, .value = value}).submit();
    kick(kControlOut);
    EXPECT_TRUE(wait_used(kControlOut));
  }
  std::string hear() {
    driver.chain(kControlIn).writable(128).submit();
    kick(kControlIn);
    const auto used = wait_used(kControlIn);
    ConsoleMessage message{};
    if (!used || used->written < sizeof message) {
      return "nothing";
    }
    std::memcpy(&message, used->bytes().data(), sizeof message);
    return fmt::format("{} {} {}", message.port, message.event, message.value);
  }

  std::atomic<int> all_sent = 0;
};
INSTANTIATE_TEST_SUITE_P(Rings, ConsoleOneWay, testing::Values(Ring::Split, Ring::Packed), ring_name);

TEST_P(ConsoleOneWay, StdinIsClosedAfterItsLastByte) {
  Pipe pipe;
  {
    const Instead instead{STDIN_FILENO, pipe.read.get()};
    make_port(SerialTarget::Kind::Stdin);
  }
  pipe.read = {};
  const auto text = noise(30'000);  // less than a pipe holds
  write_all(pipe.write.get(), text);
  pipe.write = {};
  open_port();
  EXPECT_EQ(hear(), "1 6 1") << "open, though its end is known: nobody has read it";
  say(1, kPortOpen, 1);
  EXPECT_TRUE(collect(kAgentIn, text.size()) == text);
  ask_for_more();
  EXPECT_EQ(hear(), "1 6 0");
}

TEST_P(ConsoleOneWay, StdinThatIsNeverWrittenToStaysOpen) {
  Pipe pipe;
  {
    const Instead instead{STDIN_FILENO, pipe.read.get()};
    make_port(SerialTarget::Kind::Stdin);
  }
  open_port();
  EXPECT_EQ(hear(), "1 6 1");
  say(1, kPortOpen, 1);
  driver.chain(kControlIn).writable(128).submit();
  kick(kControlIn);
  ask_for_more();
  EXPECT_TRUE(settles());
  EXPECT_FALSE(driver.take_used(kControlIn));
  write_all(pipe.write.get(), "late");
  EXPECT_EQ(wait_used(kAgentIn)->text(), "late");
  pipe.write = {};
  ask_for_more();
  EXPECT_TRUE(wait_used(kControlIn));
}

TEST_P(ConsoleOneWay, StdoutIsClosedWhenItsReaderLeaves) {
  Pipe pipe;
  {
    const Instead instead{STDOUT_FILENO, pipe.write.get()};
    make_port(SerialTarget::Kind::Stdout);
  }
  pipe.write = {};
  open_port();
  EXPECT_EQ(hear(), "1 6 1");
  say(1, kPortOpen, 1);
  send(kAgentOut, "read");
  EXPECT_EQ(read_up_to(pipe.read.get(), 4), "read");
  pipe.read = {};
  send(kAgentOut, "unread");  // given back all the same
  EXPECT_EQ(hear(), "1 6 0");
  send(kAgentOut, "more");
  on_loop([&] { ports->finish(std::chrono::milliseconds{0}); });
  EXPECT_TRUE(ports->troubles().empty()) << "as with any program in a pipe";
}

TEST_P(ConsoleOneWay, AFullDiskIsToldOf) {
  const Fd full{check(::open("/dev/full", O_WRONLY | O_CLOEXEC), "/dev/full")};
  {
    const Instead instead{STDERR_FILENO, full.get()};
    make_port(SerialTarget::Kind::Stderr);
  }
  open_port();
  EXPECT_EQ(hear(), "1 6 1");
  say(1, kPortOpen, 1);
  send(kAgentOut, "lost");
  EXPECT_EQ(hear(), "1 6 0");
  ASSERT_EQ(ports->troubles().size(), 1U);
  EXPECT_NE(ports->troubles()[0].find("stderr: No space left on device"), std::string::npos);
}

TEST_P(ConsoleOneWay, SaysWhenAllIsSent) {
  Pipe pipe;
  const auto room = check(::fcntl(pipe.write.get(), F_SETPIPE_SZ, 4096), "F_SETPIPE_SZ");
  {
    const Instead instead{STDOUT_FILENO, pipe.write.get()};
    make_port(SerialTarget::Kind::Stdout, {.sent = [this] { ++all_sent; }});
  }
  open_port();
  EXPECT_EQ(hear(), "1 6 1");
  say(1, kPortOpen, 1);
  EXPECT_TRUE(settles());
  const int before = all_sent;
  const auto text = noise(static_cast<std::size_t>(room) * 3);
  driver.chain(kAgentOut).readable(text).submit();
  kick(kAgentOut);
  EXPECT_TRUE(settles());
  EXPECT_EQ(all_sent, before) << "the reader has not taken all";
  EXPECT_EQ(read_up_to(pipe.read.get(), text.size()), text);
  EXPECT_TRUE(wait_used(kAgentOut));
  EXPECT_TRUE(eventually([&] { return all_sent > before; }));
}

}  // namespace
}  // namespace martlet::virtio
