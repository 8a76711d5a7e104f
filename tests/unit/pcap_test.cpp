// Captures, read back packet by packet by a reader that shares nothing with the writer.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/pcap_backend.h"
#include "tests/unit/boot_support.h"
#include "tests/unit/net_fixture.h"
#include "tests/unit/pcapng_reader.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

using test::Captured;
using test::FileDir;
using virtio::FakeBackend;
using virtio::Frame;

constexpr MacAddress kMac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr std::size_t kHeader = NetBackend::kHeaderSize;

/// A capture around a fake backend.
struct Bench {
  explicit Bench(const std::string& path, std::size_t room = std::size_t{8} << 20U) {
    auto fake = std::make_unique<FakeBackend>(2);
    inner = fake.get();
    backend.emplace(std::move(fake),
                    PcapWriter::Options{.path = path, .interface = {.name = "bridge=br0", .mac = kMac}, .room = room},
                    [this](std::string_view line) { said += std::string{line} + "\n"; });
  }
  /// In pieces that end where no header does.
  std::ptrdiff_t send(Frame frame, std::uint16_t pair = 0) {
    const auto at = [&](std::size_t begin, std::size_t end) {
      return iovec{.iov_base = frame.data() + std::min(begin, frame.size()),
                   .iov_len = std::min(end, frame.size()) - std::min(begin, frame.size())};
    };
    const std::array<iovec, 5> pieces{at(0, 5), at(5, 5), at(5, 13), at(13, 40), at(40, frame.size())};
    return backend->send(pair, pieces);
  }
  std::string said;
  FakeBackend* inner = nullptr;
  std::optional<PcapBackend> backend;
};

std::string text_of(const Frame& frame) { return {reinterpret_cast<const char*>(frame.data()), frame.size()}; }
std::string wire_bytes(const Frame& whole) { return text_of(whole).substr(kHeader); }

/// Frame number `number`, with a header that must not show up.
Frame numbered(std::uint32_t number, std::size_t size) {
  Frame frame = virtio::payload(kHeader + size, number);
  std::fill_n(frame.begin(), kHeader, std::byte{0xee});
  std::memcpy(frame.data() + kHeader, &number, sizeof number);
  return frame;
}

TEST(Pcap, HoldsWhatWasSentAndReceived) {
  const FileDir directory;
  const auto path = directory / "a.pcapng";
  std::mt19937 random{1};
  std::vector<std::pair<std::uint32_t, std::string>> expected;
  const auto before = pcapng::now();
  {
    Bench bench{path};
    EXPECT_EQ(bench.backend->vhost_fd(0), -1);
    EXPECT_EQ(bench.backend->pairs(), 2);
    Frame buffer(kHeader + NetBackend::kMaxFrame);
    for (std::uint32_t number = 0; number < 300; ++number) {
      const auto size = number == 17 ? NetBackend::kMaxFrame : 14 + random() % 3000;
      const auto frame = numbered(number, size);
      const auto pair = static_cast<std::uint16_t>(random() % 2);
      if (random() % 2 == 0) {
        EXPECT_EQ(bench.send(frame, pair), static_cast<std::ptrdiff_t>(frame.size()));
        EXPECT_EQ(bench.inner->pairs_[pair].from_guest.back(), frame);
        expected.emplace_back(2, wire_bytes(frame));
      } else {
        bench.inner->push(frame, pair);
        const std::array<iovec, 3> into{
            {{buffer.data(), 3}, {buffer.data() + 3, 700}, {buffer.data() + 703, buffer.size() - 703}}};
        EXPECT_EQ(bench.backend->receive(pair, into), static_cast<std::ptrdiff_t>(frame.size()));
        expected.emplace_back(1, wire_bytes(frame));
        EXPECT_EQ(bench.backend->receive(pair, into), -EAGAIN);  // is no frame
      }
    }
    bench.inner->full = true;
    EXPECT_EQ(bench.send(numbered(0, 60)), -EAGAIN);
    bench.backend.reset();
    EXPECT_EQ(bench.said, "");
  }
  const Captured file{test::read_file(path)};
  EXPECT_EQ(file.wrong, "");
  EXPECT_FALSE(file.cut);
  EXPECT_EQ(file.application, "Martlet");
  ASSERT_EQ(file.interfaces.size(), 1U);
  EXPECT_EQ(file.interfaces[0].at(2), "bridge=br0");
  EXPECT_EQ(file.interfaces[0].at(6), std::string(reinterpret_cast<const char*>(kMac.data()), kMac.size()));
  ASSERT_EQ(file.packets.size(), expected.size());
  auto time = before;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(file.packets[i].direction, expected[i].first);
    EXPECT_TRUE(file.packets[i].bytes == expected[i].second) << i;
    EXPECT_EQ(file.packets[i].lost, 0U);
    EXPECT_GE(file.packets[i].time, time);
    time = file.packets[i].time;
  }
  EXPECT_LE(time, pcapng::now());
  ASSERT_EQ(file.statistics.size(), 1U);
  EXPECT_EQ(file.statistics[0].seen, expected.size());
  EXPECT_EQ(file.statistics[0].dropped, 0U);
}

TEST(Pcap, TakesSeveralFramesAtOnce) {
  const FileDir directory;
  const auto path = directory / "a.pcapng";
  std::vector<Frame> frames;
  {
    Bench bench{path};
    std::vector<iovec> vectors;
    for (std::uint32_t number = 0; number < 5; ++number) {
      bench.inner->push(numbered(100 + number, 60));
      frames.push_back(numbered(number, 60 + number));
    }
    for (auto& frame : frames) {
      vectors.push_back({.iov_base = frame.data(), .iov_len = frame.size()});
    }
    std::vector<NetBackend::Transfer> transfers;
    for (const auto& vector : vectors) {
      transfers.push_back({.vectors = {&vector, 1}});
    }
    bench.backend->send_all(0, transfers);
    EXPECT_EQ(transfers[4].result, static_cast<std::ptrdiff_t>(frames[4].size()));
    bench.backend->receive_all(0, std::span{transfers}.first(4));
    bench.inner->full = true;
    bench.backend->send_all(0, transfers);
    EXPECT_EQ(transfers[0].result, -EAGAIN);
  }
  const Captured file{test::read_file(path)};
  EXPECT_EQ(file.wrong, "");
  ASSERT_EQ(file.packets.size(), 9U);
  for (std::uint32_t number = 0; number < 9; ++number) {
    const auto& packet = file.packets[number];
    EXPECT_EQ(Captured::number<std::uint32_t>(packet.bytes), number < 5 ? number : 95 + number);
    EXPECT_EQ(packet.direction, number < 5 ? 2U : 1U);
  }
}

/// Each frame that was captured is whole, and what is missing before it is said there.
void expect_gaps_told(const Captured& file, std::size_t size) {
  std::uint32_t next = 0;
  for (const auto& packet : file.packets) {
    const auto number = Captured::number<std::uint32_t>(packet.bytes);
    ASSERT_EQ(packet.lost, number - next);
    ASSERT_TRUE(packet.bytes == wire_bytes(numbered(number, size)));
    next = number + 1;
  }
}

TEST(Pcap, AWriterThatIsOvertakenSaysWhere) {
  const FileDir directory;
  const auto path = directory / "a.pcapng";
  constexpr std::uint32_t kFrames = 20000;
  constexpr std::size_t kSize = 999;  // no multiple of 4: padded
  {
    Bench bench{path, 16384};
    for (std::uint32_t number = 0; number < kFrames; ++number) {
      ASSERT_GT(bench.send(numbered(number, kSize)), 0);
      bench.inner->pairs_[0].from_guest.clear();
    }
  }
  const Captured file{test::read_file(path)};
  EXPECT_EQ(file.wrong, "");
  EXPECT_FALSE(file.cut);
  expect_gaps_told(file, kSize);
  ASSERT_EQ(file.statistics.size(), 1U);
  EXPECT_EQ(file.statistics[0].seen, kFrames);
  EXPECT_EQ(file.packets.size() + file.statistics[0].dropped, kFrames);
}

TEST(Pcap, AFileThatTakesNothingHoldsNobodyUp) {
  const FileDir directory;
  const auto path = directory / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const Fd reader{::open(path.c_str(), O_RDONLY | O_NONBLOCK)};
  ::fcntl(reader.get(), F_SETPIPE_SZ, 4096);
  Bench bench{path, 65536};
  constexpr std::uint32_t kFrames = 1000;
  constexpr std::size_t kSize = 1000;
  for (std::uint32_t number = 0; number < kFrames; ++number) {
    ASSERT_GT(bench.send(numbered(number, kSize)), 0);
  }
  ASSERT_EQ(bench.inner->pairs_[0].from_guest.size(), kFrames);
  bench.backend.reset();
  EXPECT_NE(bench.said.find("its reader takes nothing"), std::string::npos) << bench.said;
  EXPECT_NE(bench.said.find("of 1000 frames are missing"), std::string::npos) << bench.said;
}

TEST(Pcap, ASlowReaderGetsWhatComesAfterToo) {
  const FileDir directory;
  const auto path = directory / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const Fd fifo{::open(path.c_str(), O_RDONLY | O_NONBLOCK)};
  Bench bench{path, 65536};
  constexpr std::size_t kSize = 1000;
  std::uint32_t number = 0;
  while (number < 1000) {
    ASSERT_GT(bench.send(numbered(number++, kSize)), 0);
  }
  std::string bytes;
  std::thread reader{[&] {
    ::fcntl(fifo.get(), F_SETFL, 0);
    std::array<char, 4096> part{};
    for (ssize_t got = 0; (got = ::read(fifo.get(), part.data(), part.size())) > 0;) {
      bytes.append(part.data(), static_cast<std::size_t>(got));
    }
  }};
  const auto captured = [&] {
    const auto before = bench.backend->counts().dropped;
    EXPECT_GT(bench.send(numbered(number++, kSize)), 0);
    return bench.backend->counts().dropped == before;
  };
  while (!captured()) {
    std::this_thread::yield();
  }
  bench.backend.reset();
  reader.join();
  const Captured file{bytes};
  EXPECT_EQ(file.wrong, "");
  EXPECT_FALSE(file.cut);
  expect_gaps_told(file, kSize);
  ASSERT_EQ(file.statistics.size(), 1U);
  EXPECT_EQ(file.statistics[0].seen, number);
  EXPECT_GT(file.statistics[0].dropped, 0U);
  EXPECT_EQ(file.packets.size() + file.statistics[0].dropped, number);
  EXPECT_NE(bench.said.find("frames are missing"), std::string::npos);
}

TEST(Pcap, AFullDiskEndsTheCaptureOnly) {
  Bench bench{"/dev/full"};
  for (std::uint32_t number = 0; number < 100; ++number) {
    ASSERT_GT(bench.send(numbered(number, 1000)), 0);
  }
  bench.backend.reset();
  EXPECT_NE(bench.said.find("-n pcap=/dev/full: No space left on device"), std::string::npos) << bench.said;
}

TEST(Pcap, AReaderThatGoesEndsTheCaptureOnly) {
  const FileDir directory;
  const auto path = directory / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  Fd reader{::open(path.c_str(), O_RDONLY | O_NONBLOCK)};
  const auto old = ::signal(SIGPIPE, SIG_IGN);  // as main() does
  Bench bench{path};
  reader = Fd{};
  ASSERT_GT(bench.send(numbered(0, 1000)), 0);
  bench.backend.reset();
  ::signal(SIGPIPE, old);
  EXPECT_NE(bench.said.find("Broken pipe"), std::string::npos) << bench.said;
}

TEST(Pcap, WhatIsWrittenIsThereAfterAKill) {
  const FileDir directory;
  const auto path = directory / "a.pcapng";
  constexpr std::size_t kSize = 600;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    Bench bench{path};
    for (std::uint32_t number = 0; number < 100'000; ++number) {
      static_cast<void>(bench.send(numbered(number, kSize)));
      bench.inner->pairs_[0].from_guest.clear();
    }
    ::pause();
  }
  struct stat status {};
  while (::stat(path.c_str(), &status) != 0 || status.st_size < 1'000'000) {
    std::this_thread::yield();
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const Captured file{test::read_file(path)};
  EXPECT_EQ(file.wrong, "");
  EXPECT_GT(file.packets.size(), 1000U);
  expect_gaps_told(file, kSize);
}

TEST(Pcap, WhatCannotBeWrittenIsRefused) {
  const FileDir directory;
  const auto refusal = [](const std::string& path) {
    try {
      const Bench bench{path};
    } catch (const HostError& error) {
      return std::string{error.what()};
    }
    return std::string{"accepted"};
  };
  const auto fifo = directory / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(refusal(fifo).find("nobody reads this pipe"), std::string::npos);
  EXPECT_NE(refusal("/nowhere/a").find("-n pcap=/nowhere/a: cannot open it: No such file"), std::string::npos);
  EXPECT_NE(refusal(directory / "").find("Is a directory"), std::string::npos);
  const auto path = directory / "a.pcapng";
  const Bench first{path};
  EXPECT_NE(refusal(path).find("another capture writes there"), std::string::npos);
}

}  // namespace
}  // namespace martlet
