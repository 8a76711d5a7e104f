// What the guest says on a console, and who hears it.

#include "tests/unit/console_support.h"

namespace martlet::virtio {
namespace {

using namespace std::chrono_literals;

struct ConsoleOutput : ConsoleTest {};
INSTANTIATE_TEST_SUITE_P(Rings, ConsoleOutput, testing::Values(Ring::Split, Ring::Packed), ring_name);

TEST_P(ConsoleOutput, GoesToAFileByteForByte) {
  std::string seen;
  hooks.observe = [&](std::span<const std::byte> bytes) { seen += text_of(bytes); };
  make(file(path("log")));
  start(0);
  const auto text = noise(3U << 20U);
  pour(kOut, text);
  EXPECT_TRUE(test::read_file(path("log")) == text);
  EXPECT_TRUE(seen == text);
  on_loop([&] { EXPECT_EQ(console->port().finish(0ms), 0U); });
  EXPECT_TRUE(console->port().host().trouble().empty());
}

TEST_P(ConsoleOutput, OddChainsAreGivenBackAndTheNextOneIsHeard) {
  make(file(path("log")));
  start(0);
  driver.chain(kOut).writable(100).submit();
  driver.chain(kOut).readable("a").readable("").writable(10).readable("").submit();  // NOLINT: order is wrong on
                                                                                     // purpose
  kick(kOut);
  EXPECT_EQ(wait_used(kOut)->written, 0U);
  EXPECT_EQ(wait_used(kOut)->written, 0U);
  send(kOut, "fine");
  EXPECT_TRUE(test::read_file(path("log")).ends_with("fine"));
  EXPECT_EQ(driver.resets_wanted(), 0U);
}

TEST_P(ConsoleOutput, AHugeChainIsWrittenInTurns) {
  // 15 descriptors that all name the same 16 MiB.
  constexpr std::uint32_t kPart = 16U << 20U;
  std::uint64_t seen = 0;
  hooks.observe = [&](std::span<const std::byte> bytes) { seen += bytes.size(); };
  make({.kind = SerialTarget::Kind::Null, .path = {}});
  start(0);
  const auto buffer = driver.allocate(kPart);
  auto chain = driver.chain(kOut);
  for (int i = 0; i < 15; ++i) {
    chain.raw({.addr = raw(buffer), .len = kPart});
  }
  chain.submit();
  kick(kOut);
  wait_used(kOut);
  EXPECT_EQ(seen, 15ULL * kPart);
}

TEST_P(ConsoleOutput, ASlowReaderGetsEveryByteOfTheConsole) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  const auto text = noise(16U << 20U);
  auto read = std::async(std::launch::async, [&] { return read_up_to(client.get(), text.size(), 500us); });
  pour(kOut, text);
  EXPECT_TRUE(read.get() == text);
  on_loop([&] { EXPECT_EQ(console->port().finish(0ms), 0U); });
}

TEST_P(ConsoleOutput, WithoutAClientTheGuestGoesOnAndTheNewestIsLost) {
  make(socket(path("sock")));
  start(0);
  const auto text = noise(3U << 20U);
  pour(kOut, text);
  const auto client = dial(path("sock"));
  EXPECT_TRUE(read_up_to(client.get(), ConsolePort::kBacklogSize) == text.substr(0, ConsolePort::kBacklogSize));
  const auto note = "\r\n[martlet: " + std::to_string(text.size() - ConsolePort::kBacklogSize) +
                    " bytes of console output lost: nobody read it]\r\n";
  EXPECT_EQ(read_up_to(client.get(), note.size()), note);
  send(kOut, "and on");
  EXPECT_EQ(read_up_to(client.get(), 6), "and on");
  on_loop([&] { EXPECT_EQ(console->port().finish(0ms), text.size() - ConsolePort::kBacklogSize); });
}

TEST_P(ConsoleOutput, APtyThatNobodyReadsDoesNotStopTheGuest) {
  make({.kind = SerialTarget::Kind::Pty, .path = {}});
  start(0);
  const auto text = noise(3U << 20U);
  pour(kOut, text);
  EXPECT_TRUE(settles());
  const auto slave = open_file(console->port().host().pty_path(), O_RDWR | O_NOCTTY);
  EXPECT_TRUE(read_up_to(slave.get(), ConsolePort::kBacklogSize) == text.substr(0, ConsolePort::kBacklogSize));
  std::string rest;
  while (rest.find("nobody read it]\r\n") == std::string::npos && rest.size() < text.size()) {
    const auto more = read_up_to(slave.get(), 1);
    ASSERT_FALSE(more.empty());
    rest += more;
  }
  pour(kOut, noise(100000));  // it is somebody again
  EXPECT_TRUE(read_up_to(slave.get(), 100000) == noise(100000));
}

TEST_P(ConsoleOutput, AClientThatLeavesStopsNobody) {
  make(socket(path("sock")));
  start(0);
  auto client = dial(path("sock"));
  auto poured = std::async(std::launch::async, [&] { pour(kOut, noise(8U << 20U)); });
  EXPECT_EQ(read_up_to(client.get(), 100000).size(), 100000U);
  client = Fd{};
  poured.get();
  client = dial(path("sock"));
  EXPECT_FALSE(read_up_to(client.get(), 1000).empty());
}

TEST_P(ConsoleOutput, TheLastWordsBeforeAResetAreHeard) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  const auto text = noise(1200000);  // more than fits: the last chain is held
  submit(kOut, text);
  EXPECT_TRUE(settles());
  stop();
  start(0);
  auto read = std::async(std::launch::async, [&] { return read_up_to(client.get(), text.size() + 5); });
  send(kOut, "after");
  EXPECT_TRUE(read.get() == text + "after");
}

TEST_P(ConsoleOutput, AQueueStoppedWhileAChainIsHeldTouchesNothingMore) {
  make(socket(path("sock")));
  start(0);
  const auto client = dial(path("sock"));
  for (int i = 0; i < 3; ++i) {
    submit(kOut, std::string(1U << 20U, 'x'));
  }
  EXPECT_TRUE(settles());
  on_loop([&] {
    console->stop_queue(kOut);
    started[kOut] = false;
    console->stop_queue(kOut);
  });
  std::uint64_t lost = 0;
  auto read = std::async(std::launch::async, [&] { return read_up_to(client.get(), 4U << 20U); });
  on_loop([&] { lost = console->port().finish(5000ms); });
  on_loop([&] { remove(); });
  const auto got = read.get();
  EXPECT_GE(got.size(), ConsolePort::kBacklogSize);
  EXPECT_GT(lost, 0U) << "a chain in the ring that was never taken does not count, the held one's rest does";
}

/// A ring of 64 KiB chains, more than one turn of the loop takes, that nobody kicks for.
struct FullRing {
  static constexpr std::size_t kChain = 64U << 10U;
  static constexpr std::size_t kBytes = 128 * kChain;

  explicit FullRing(Ring ring) : driver{{.size = 128, .ring = ring, .queues = ConsoleTest::kQueues}} {}
  void fill(Console& console, std::string_view text) {
    console.start(driver.features(), driver);
    console.start_queue(ConsoleTest::kOut, driver.make_queue(ConsoleTest::kOut), driver.kick_fd());
    for (std::size_t at = 0; at < kBytes; at += kChain) {
      driver.chain(ConsoleTest::kOut).readable(text.substr(at, kChain)).submit();
    }
  }
  FakeDriver driver;
};

TEST_P(ConsoleOutput, AllThatIsInTheRingAtTheEndIsHeard) {
  FullRing ring{GetParam()};
  make(file(path("log")));
  const auto text = noise(FullRing::kBytes);
  ring.fill(*console, text);
  EXPECT_EQ(console->port().finish(60s), 0U);
  EXPECT_TRUE(test::read_file(path("log")) == text);
  remove();
}

TEST_P(ConsoleOutput, WhatIsLeftInTheRingAtTheEndCounts) {
  FullRing ring{GetParam()};
  make(socket(path("sock")));
  const auto client = dial(path("sock"));
  ring.fill(*console, noise(FullRing::kBytes));
  const auto lost = console->port().finish(0ms);
  remove();
  EXPECT_EQ(lost + read_up_to(client.get(), FullRing::kBytes).size(), FullRing::kBytes);
}

TEST_P(ConsoleOutput, AFullDiskIsTroubleOnceAndTheGuestGoesOn) {
  make(file("/dev/full"));
  start(0);
  pour(kOut, noise(300000));
  on_loop([&] { EXPECT_EQ(console->port().finish(0ms), 0U); });
  EXPECT_NE(console->port().host().trouble().find("/dev/full: No space left on device"), std::string::npos);
}

TEST_P(ConsoleOutput, EmergencyWritesAreHeardWithoutADriver) {
  std::string seen;
  hooks.observe = [&](std::span<const std::byte> bytes) { seen += text_of(bytes); };
  make(file(path("log")));
  for (const char c : std::string_view{"panic"}) {
    const auto value = static_cast<std::uint32_t>(static_cast<unsigned char>(c)) | 0xabcd'ef00U;
    console->write_config(8, std::as_bytes(std::span{&value, 1}));
  }
  const std::uint32_t elsewhere = 0x41414141;
  console->write_config(0, std::as_bytes(std::span{&elsewhere, 1}));
  console->write_config(9, std::as_bytes(std::span{&elsewhere, 1}));
  console->write_config(0xffffffff, std::as_bytes(std::span{&elsewhere, 1}));
  console->write_config(8, {});
  EXPECT_EQ(test::read_file(path("log")), "panic");
  EXPECT_EQ(seen, "panic");
}

TEST_P(ConsoleOutput, TheTerminalsSizeIsInTheConfiguration) {
  make({.kind = SerialTarget::Kind::Null, .path = {}});
  const auto config = [&] {
    std::array<std::uint16_t, 8> words{};
    console->read_config(0, std::as_writable_bytes(std::span{words}));
    return words;
  };
  EXPECT_EQ(config(), (std::array<std::uint16_t, 8>{}));
  const auto generation = console->config_generation();
  start(kConsoleSize);
  on_loop([&] { console->resize({.columns = 80, .rows = 25}); });
  EXPECT_EQ(config(), (std::array<std::uint16_t, 8>{80, 25, 0, 0, 0, 0, 0, 0}));
  EXPECT_NE(console->config_generation(), generation);
  EXPECT_EQ(driver.config_changes(), 1U);
  on_loop([&] { console->resize({.columns = 80, .rows = 25}); });
  EXPECT_EQ(driver.config_changes(), 1U) << "it has not changed";
  std::array<std::byte, 4> beyond{std::byte{1}};
  console->read_config(0xffff'fff0, beyond);
  EXPECT_EQ(beyond, (std::array<std::byte, 4>{}));
}

TEST_P(ConsoleOutput, APlaceThatIsNotThereIsRefused) { EXPECT_THROW(make(file(path("no/log"))), HostError); }

}  // namespace
}  // namespace martlet::virtio
