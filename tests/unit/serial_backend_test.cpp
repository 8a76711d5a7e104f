#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include "tests/unit/serial_support.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;

TEST_F(Serial, PassesAMebibyteToAPipeUnchanged) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  const auto text = noise(1U << 20U);
  for (std::size_t at = 0; at < text.size(); at += 1U << 17U) {  // half of what the backlog holds
    const auto part = text.substr(at, 1U << 17U);
    auto read = std::async(std::launch::async, [&] { return read_up_to(pipe.read.get(), part.size()); });
    put_slowly(part);
    EXPECT_TRUE(read.get() == part);
  }
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_EQ(backend->trouble(), "");
}

TEST_F(Serial, AnUnreadPipeStopsNobodyAndLossIsCounted) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  const auto text = noise(1U << 20U);
  put_slowly(text);
  EXPECT_TRUE(eventually([&] { return observed == text.size(); })) << "whether or not anybody reads";
  EXPECT_TRUE(sleeps_on()) << "a blocked sink and a silent guest wake nobody";
  auto read = std::async(std::launch::async, [&] {
    std::string got;
    while (got.find("nobody read it]\r\n") == std::string::npos) {
      std::array<char, 4096> chunk;
      pollfd wait{.fd = pipe.read.get(), .events = POLLIN, .revents = 0};
      const auto more = ::poll(&wait, 1, 30000) > 0 ? ::read(pipe.read.get(), chunk.data(), chunk.size()) : 0;
      if (more <= 0) {
        break;
      }
      got.append(chunk.data(), static_cast<std::size_t>(more));
    }
    return got;
  });
  const auto got = read.get();
  const auto note = got.rfind("\r\n[martlet: ");
  ASSERT_NE(note, std::string::npos);
  EXPECT_GE(note, SerialBackend::kBacklogSize);
  EXPECT_TRUE(got.substr(0, note) == text.substr(0, note));
  EXPECT_EQ(got.substr(note), "\r\n[martlet: " + std::to_string(text.size() - note) +
                                  " bytes of serial output lost: nobody read it]\r\n");
  put("and on");
  EXPECT_EQ(read_up_to(pipe.read.get(), 6), "and on");
  halt();
}

TEST_F(Serial, FinishGivesUpOnAPipeThatNobodyReads) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  put_slowly(std::string(100000, 'x'));
  halt();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_GT(backend->finish(50ms), 0U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
  auto read = std::async(std::launch::async, [&] { return read_up_to(pipe.read.get(), 100000); });
  EXPECT_EQ(backend->finish(30s), 0U);
  EXPECT_EQ(read.get().size(), 100000U);
}

TEST_F(Serial, FinishTakesWhatNoTickHasSeen) {
  make({.kind = SerialTarget::Kind::File, .path = directory.file("log")});
  put("last words");
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_EQ(test::read_file(directory.file("log")), "last words");
}

TEST_F(Serial, AClosedReaderIsTroubleOnceAndTheGuestGoesOn) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  pipe.read = Fd{};
  put("one");
  EXPECT_TRUE(eventually([&] { return observed == 3; }));
  put("two");
  EXPECT_TRUE(eventually([&] { return observed == 6; }));
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_NE(backend->trouble().find("stdout: Broken pipe"), std::string::npos) << backend->trouble();
}

TEST_F(Serial, AReaderThatLeavesWhileItIsBehind) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  put_slowly(std::string(200000, 'x'));
  pipe.read = Fd{};
  EXPECT_TRUE(sleeps_on());
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_NE(backend->trouble(), "");
}

TEST_F(Serial, AFullDiskIsTrouble) {
  make({.kind = SerialTarget::Kind::File, .path = "/dev/full"});
  run();
  put_slowly(std::string(20000, 'x'));
  halt();
  backend->finish(1s);
  EXPECT_NE(backend->trouble().find("/dev/full: No space left on device"), std::string::npos) << backend->trouble();
}

TEST_F(Serial, WritesARegularFileExactly) {
  const auto path = directory.file("log");
  std::ofstream{path} << "what was here before";
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  const auto text = noise(1U << 20U);
  put_slowly(text);
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_TRUE(test::read_file(path) == text);
}

TEST_F(Serial, KeepsTheOffsetOfARedirectedFile) {
  const auto path = directory.file("log");
  const auto file = open_file(path, O_WRONLY | O_CREAT, 0600);
  write_all(file.get(), "before ");
  make_stdio(-1, file.get());
  put("during ");
  backend->finish(1s);
  write_all(file.get(), "after");
  EXPECT_EQ(test::read_file(path), "before during after");
}

TEST_F(Serial, LeavesSharedDescriptorsBlocking) {
  Pipe in;
  Pipe out;
  make_stdio(in.read.get(), out.write.get());
  run();
  put("x");
  EXPECT_EQ(read_up_to(out.read.get(), 1), "x");
  EXPECT_EQ(::fcntl(in.read.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(out.write.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(Serial, ASocketpairAsStdioIsNeitherSwitchedNorBlocking) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Fd ours{ends[0]};
  Fd theirs{ends[1]};
  make_stdio(ours.get(), ours.get());
  run();
  put_slowly(std::string(1U << 20U, 'x'));
  EXPECT_EQ(read_up_to(theirs.get(), 1000), std::string(1000, 'x'));
  write_all(theirs.get(), "input");
  EXPECT_EQ(device.take(5), "input");
  EXPECT_EQ(::fcntl(ours.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(Serial, AnIdleGuestWakesNobody) {
  Pipe in;
  Pipe out;
  make_stdio(in.read.get(), out.write.get());
  run();
  put("hello");
  EXPECT_EQ(read_up_to(out.read.get(), 5), "hello");
  EXPECT_TRUE(sleeps_on());
}

TEST_F(Serial, HooksFollowABusyPhase) {
  // As the owner does: while busy, KVM keeps the guest's bytes, and drain() fetches them.
  std::mutex mutex;  // KVM's: its ring and the switch are of one piece
  bool coalescing = false;
  std::string at_kvm;
  int phases = 0;
  const auto fetch = [&] {
    put(at_kvm);
    at_kvm.clear();
  };
  hooks.drain = [&] {
    const std::lock_guard lock{mutex};
    fetch();
  };
  hooks.busy = [&](bool busy) {
    const std::lock_guard lock{mutex};
    coalescing = busy;
    phases += busy ? 1 : 0;
    fetch();
  };
  std::string seen;
  hooks.observe = [&](std::span<const std::byte> bytes) {
    seen += text_of(bytes);
    observed = seen.size();
  };
  const auto path = directory.file("log");
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  const auto text = noise(200000);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i % 4096 == 0) {
      std::this_thread::sleep_for(1ms);
      // Never more than there is room for, however late the loop is.
      EXPECT_TRUE(eventually([&] { return i - observed < SerialBackend::kInboxSize / 4; }, 10us));
    }
    const std::lock_guard lock{mutex};
    if (coalescing) {
      at_kvm.push_back(text[i]);
    } else {
      backend->put(static_cast<std::byte>(text[i]));
    }
  }
  EXPECT_TRUE(eventually([&] { return std::filesystem::file_size(path) == text.size(); }));
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock{mutex};
    return !coalescing;
  }));
  halt();
  EXPECT_GE(phases, 1);
  EXPECT_TRUE(seen == text);
}

TEST_F(Serial, AFewBytesAreNoBusyPhase) {
  std::atomic<int> calls = 0;
  hooks.busy = [&](bool) { ++calls; };
  Pipe out;
  make_stdio(-1, out.write.get());
  run();
  put("echo");
  EXPECT_EQ(read_up_to(out.read.get(), 4), "echo");
  halt();
  EXPECT_EQ(calls, 0);
}

TEST_F(Serial, ThreadsPutAtOnce) {
  const auto path = directory.file("log");
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  {
    std::jthread one{[&] { put_slowly(std::string(50000, 'a')); }};
    std::jthread two{[&] { put_slowly(std::string(50000, 'b')); }};
  }
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  const auto text = test::read_file(path);
  EXPECT_EQ(std::ranges::count(text, 'a'), 50000);
  EXPECT_EQ(std::ranges::count(text, 'b'), 50000);
}

TEST_F(Serial, RefusesFilesItCannotWrite) {
  using Kind = SerialTarget::Kind;
  EXPECT_THROW(SerialBackend(loop, {.kind = Kind::File, .path = directory.path()}), HostError);
  EXPECT_THROW(SerialBackend(loop, {.kind = Kind::File, .path = directory.file("no/log")}), HostError);
  const auto fifo = directory.file("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THROW(SerialBackend(loop, {.kind = Kind::File, .path = fifo}), HostError) << "and does not wait for a reader";
}

TEST(SerialTarget, IsParsed) {
  using Kind = SerialTarget::Kind;
  EXPECT_EQ(parse_serial_target("stdio").kind, Kind::Stdio);
  EXPECT_EQ(parse_serial_target("null").kind, Kind::Null);
  EXPECT_EQ(parse_serial_target("pty").kind, Kind::Pty);
  EXPECT_EQ(parse_serial_target("file=a=b").path, "a=b");
  EXPECT_EQ(parse_serial_target("socket=/run/x").kind, Kind::Socket);
  for (const auto* const bad : {"", "file", "file=", "socket=", "pty=1", "tcp:1", "Stdio"}) {
    EXPECT_THROW(static_cast<void>(parse_serial_target(bad)), HostError) << bad;
  }
}

}  // namespace
}  // namespace martlet
