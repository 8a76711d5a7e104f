// What the host says to a console, and when the guest gets it.

#include "tests/unit/console_support.h"

namespace martlet::virtio {
namespace {

using namespace std::chrono_literals;

struct ConsoleInput : ConsoleTest {
  /// Gives the device one buffer.
  void offer(std::uint32_t bytes) {
    driver.chain(kIn).writable(bytes).submit();
    kick(kIn);
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, ConsoleInput, testing::Values(Ring::Split, Ring::Packed), ring_name);

TEST_P(ConsoleInput, ArrivesWhole) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  const auto text = noise(16U << 20U);
  std::jthread writer{[&] { write_all(client.get(), text); }};
  EXPECT_TRUE(collect(kIn, text.size()) == text);
  EXPECT_TRUE(settles());
}

TEST_P(ConsoleInput, StaysWithTheClientUntilTheGuestHasBuffers) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  write_all(client.get(), "hello");
  EXPECT_TRUE(settles()) << "input that cannot be taken wakes nobody";
  offer(3);
  EXPECT_EQ(wait_used(kIn)->text(), "hel");
  offer(100);
  EXPECT_EQ(wait_used(kIn)->text(), "lo");
}

TEST_P(ConsoleInput, UselessBuffersComeBackEmpty) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  driver.chain(kIn).readable("to read from").submit();
  driver.chain(kIn).writable(0).submit();
  offer(8);
  write_all(client.get(), "x");
  std::string text;
  for (int i = 0; i < 3; ++i) {
    const auto used = wait_used(kIn);
    ASSERT_TRUE(used);
    text += used->text();
  }
  EXPECT_EQ(text, "x");
}

TEST_P(ConsoleInput, OfAClientThatLeftIsDeliveredBeforeTheNextOnes) {
  make(socket(path("sock")));
  start(0);
  auto client = dial(path("sock"));
  write_all(client.get(), noise(5000));
  client = Fd{};
  client = dial(path("sock"));
  write_all(client.get(), "next");
  EXPECT_TRUE(settles()) << "a hang-up that must wait wakes nobody";
  EXPECT_TRUE(collect(kIn, 5004) == noise(5000) + "next");
}

TEST_P(ConsoleInput, AHalfClosedClientStillReads) {
  make(socket(path("sock")));
  start(0);
  auto client = dial(path("sock"));
  write_all(client.get(), "only listening from now on");
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(collect(kIn, 26), "only listening from now on");
  EXPECT_TRUE(settles());
  send(kOut, "still here");
  EXPECT_EQ(read_up_to(client.get(), 10), "still here");
  client = Fd{};
  client = dial(path("sock"));
  write_all(client.get(), "next");
  EXPECT_EQ(collect(kIn, 4), "next");
}

TEST_P(ConsoleInput, APtyTalksBack) {
  make({.kind = SerialTarget::Kind::Pty, .path = {}});
  start(0);
  const auto slave = open_file(console->port().host().pty_path(), O_RDWR | O_NOCTTY);
  write_all(slave.get(), "in\r\x03\x04\n");
  EXPECT_EQ(collect(kIn, 6), "in\r\x03\x04\n");
  send(kOut, "out\n");
  EXPECT_EQ(read_up_to(slave.get(), 4), "out\n");
}

TEST_P(ConsoleInput, AQueueStoppedWithABufferInHandKeepsItsHandsOff) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  offer(100);
  EXPECT_TRUE(settles());
  on_loop([&] {
    console->stop_queue(kIn);
    started[kIn] = false;
  });
  write_all(client.get(), "later");
  EXPECT_TRUE(settles());
  start_queue(kIn);
  EXPECT_EQ(collect(kIn, 5), "later");
}

TEST_P(ConsoleInput, IsTypedAheadAsFarAsATerminalDoes) {
  make({.kind = SerialTarget::Kind::Null, .path = {}});
  const auto text = noise(2 * ConsolePort::kTypeAheadSize);
  on_loop([&] {
    console->port().type(bytes_of("forgotten"));
    console->port().flush_type_ahead();
    console->port().type(bytes_of(text));
  });
  start(0);
  EXPECT_TRUE(collect(kIn, ConsolePort::kTypeAheadSize) == text.substr(0, ConsolePort::kTypeAheadSize));
  on_loop([&] { console->port().type(bytes_of("live")); });
  EXPECT_EQ(collect(kIn, 4), "live");
}

TEST_P(ConsoleInput, ComesFromOtherHandsWhereTheyAskForRoom) {
  std::atomic<int> asked = 0;
  std::vector<bool> opened;
  hooks.has_room = [&] { ++asked; };
  hooks.opened = [&](bool open) { opened.push_back(open); };
  make({.kind = SerialTarget::Kind::Null, .path = {}});
  on_loop([&] {
    EXPECT_EQ(console->port().room(), 0U);
    EXPECT_EQ(console->port().receive(bytes_of("no")), 0U);
  });
  start(0);
  EXPECT_TRUE(console->port().open());
  EXPECT_EQ(asked, 1);
  on_loop([&] { EXPECT_EQ(console->port().room(), 0U) << "no buffers yet"; });
  offer(3);
  EXPECT_TRUE(eventually([&] { return asked == 2; }));
  on_loop([&] {
    EXPECT_EQ(console->port().room(), 3U);
    EXPECT_EQ(console->port().receive(bytes_of("hello")), 3U);
  });
  EXPECT_EQ(wait_used(kIn)->text(), "hel");
  stop();
  EXPECT_FALSE(console->port().open());
  EXPECT_EQ(opened, (std::vector<bool>{true, false}));
}

TEST_P(ConsoleInput, KeysAreSeenThoughTheGuestHangs) {
  // stdin is a pipe; whoever reads it here is told of every byte.
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd read_end{ends[0]};
  const Fd write_end{ends[1]};
  std::string keys;
  std::mutex mutex;
  hooks.typed = [&](std::span<const std::byte> bytes) {
    const std::lock_guard lock{mutex};
    keys += text_of(bytes);
    console->port().type(bytes);
  };
  std::fflush(stdout);
  const auto saved_in = duplicate(0);
  ::dup2(read_end.get(), 0);
  make({.kind = SerialTarget::Kind::Stdio, .path = {}});
  ::dup2(saved_in.get(), 0);
  write_all(write_end.get(), "before the driver");
  thread = std::jthread{[this] { loop.run(); }};
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock{mutex};
    return keys == "before the driver";
  }));
  start(0);
  EXPECT_EQ(collect(kIn, 17), "before the driver");
}

}  // namespace
}  // namespace martlet::virtio
