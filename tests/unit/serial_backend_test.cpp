#include "devices/serial_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>

#include "devices/uart16550.h"
#include "vmm/base/error.h"
#include "vmm/base/irq_line.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t state = 12345;
  for (auto& c : text) {
    state = state * 1664525U + 1013904223U;
    c = static_cast<char>(state >> 24U);
  }
  return text;
}

/// Waits for a condition, but not for ever.
template <class Condition>
bool eventually(Condition condition, std::chrono::microseconds between = 1ms) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(between);
  }
  return true;
}

/// Reads until `size` bytes or the end came, or nothing did for long.
std::string read_up_to(int fd, std::size_t size) {
  std::string text;
  std::array<char, 65536> chunk;
  while (text.size() < size) {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, 30000) <= 0) {
      break;
    }
    const auto got = ::read(fd, chunk.data(), std::min(chunk.size(), size - text.size()));
    if (got <= 0) {
      break;
    }
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return text;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto put = ::write(fd, text.data(), text.size());
    ASSERT_GT(put, 0);
    text.remove_prefix(static_cast<std::size_t>(put));
  }
}

std::string contents(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

/// Takes what fits, as a UART does; the test empties it.
struct Device final : SerialDevice {
  std::size_t room() noexcept override {
    const std::lock_guard lock{mutex};
    refused = refused || held.size() >= limit;
    return limit - held.size();
  }
  std::size_t receive(std::span<const std::byte> bytes) noexcept override {
    const std::lock_guard lock{mutex};
    const auto taken = std::min(bytes.size(), limit - held.size());
    held += text_of(bytes.first(taken));
    refused = taken < bytes.size();
    return taken;
  }
  std::string take() {
    bool wake = false;
    std::string text;
    {
      const std::lock_guard lock{mutex};
      text.swap(held);
      wake = std::exchange(refused, false);
    }
    if (wake) {
      host->has_room();
    }
    return text;
  }
  std::string take(std::size_t size) {
    std::string text;
    eventually(
        [&] {
          text += take();
          return text.size() >= size;
        },
        0us);
    return text;
  }
  SerialHost* host = nullptr;
  std::mutex mutex;
  std::string held;
  std::size_t limit = 16;
  bool refused = false;
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

struct Serial : ::testing::Test {
  Serial() {
    std::signal(SIGPIPE, SIG_IGN);
    std::string name = "/tmp/martlet-serial-XXXXXX";
    directory = ::mkdtemp(name.data());
    loop.watch(stop.fd(), EPOLLIN, [this](std::uint32_t) { loop.stop(); });
  }
  ~Serial() override {
    halt();
    backend.reset();
    std::filesystem::remove_all(directory);
  }

  /// A backend on `in` and `out` as our stdin and stdout; -1 is /dev/null.
  void make_stdio(int in, int out) {
    std::fflush(stdout);
    const auto null = open_file("/dev/null", O_RDWR);
    const auto saved_in = duplicate(0);
    const auto saved_out = duplicate(1);
    ::dup2(in < 0 ? null.get() : in, 0);
    ::dup2(out < 0 ? null.get() : out, 1);
    make({.kind = SerialTarget::Kind::Stdio});
    ::dup2(saved_in.get(), 0);
    ::dup2(saved_out.get(), 1);
  }
  void make(const SerialTarget& target) {
    hooks.observe = [this, also = hooks.observe](std::span<const std::byte> bytes) {
      observed += bytes.size();
      if (also) {
        also(bytes);
      }
    };
    backend.emplace(loop, target, hooks);
    device.host = &*backend;
  }
  void run() {
    backend->connect(device);
    run_unconnected();
  }
  void run_unconnected() {
    thread = std::jthread{[this] { loop.run(); }};
  }
  /// Ends the loop; from here on the test may call finish().
  void halt() {
    if (thread.joinable()) {
      stop.raise();
      thread.join();
    }
  }
  void put(std::string_view text) {
    for (const char c : text) {
      backend->put(static_cast<std::byte>(c));
    }
  }
  /// As a vCPU does, which never gets far ahead of the loop, on a host that is not starved.
  void put_slowly(std::string_view text) {
    constexpr std::size_t kChunk = SerialBackend::kInboxSize / 4;
    for (std::size_t at = 0; at < text.size(); at += kChunk) {
      const auto chunk = text.substr(at, kChunk);
      const auto seen = observed + chunk.size();
      put(chunk);
      EXPECT_TRUE(eventually([&] { return observed >= seen; }, 10us));
    }
  }
  /// The loop comes to rest: for a while its thread uses no CPU.
  bool sleeps_on() {
    clockid_t clock{};
    check(::pthread_getcpuclockid(thread.native_handle(), &clock), "pthread_getcpuclockid");
    const auto used = [clock] {
      timespec time{};
      ::clock_gettime(clock, &time);
      return std::pair{time.tv_sec, time.tv_nsec};
    };
    return eventually([&] {
      const auto before = used();
      std::this_thread::sleep_for(100ms);
      return used() == before;
    });
  }

  std::string directory;
  EventLoop loop;
  IrqLine stop;
  Device device;
  SerialBackend::Hooks hooks;
  std::optional<SerialBackend> backend;
  std::atomic<std::size_t> observed = 0;
  std::jthread thread;
};

TEST_F(Serial, PassesAMebibyteToAPipeUnchanged) {
  Pipe pipe;
  make_stdio(-1, pipe.write.get());
  run();
  const auto text = pattern(1U << 20U);
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
  const auto text = pattern(1U << 20U);
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
  make({.kind = SerialTarget::Kind::File, .path = directory + "/log"});
  put("last words");
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_EQ(contents(directory + "/log"), "last words");
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
  const auto path = directory + "/log";
  std::ofstream{path} << "what was here before";
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  const auto text = pattern(1U << 20U);
  put_slowly(text);
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_TRUE(contents(path) == text);
}

TEST_F(Serial, KeepsTheOffsetOfARedirectedFile) {
  const auto path = directory + "/log";
  const auto file = open_file(path, O_WRONLY | O_CREAT, 0600);
  write_all(file.get(), "before ");
  make_stdio(-1, file.get());
  put("during ");
  backend->finish(1s);
  write_all(file.get(), "after");
  EXPECT_EQ(contents(path), "before during after");
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
  hooks.observe = [&](std::span<const std::byte> bytes) { seen += text_of(bytes); };
  const auto path = directory + "/log";
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  const auto text = pattern(200000);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i % 4096 == 0) {
      std::this_thread::sleep_for(1ms);
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
  const auto path = directory + "/log";
  make({.kind = SerialTarget::Kind::File, .path = path});
  run();
  {
    std::jthread one{[&] { put_slowly(std::string(50000, 'a')); }};
    std::jthread two{[&] { put_slowly(std::string(50000, 'b')); }};
  }
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  const auto text = contents(path);
  EXPECT_EQ(std::ranges::count(text, 'a'), 50000);
  EXPECT_EQ(std::ranges::count(text, 'b'), 50000);
}

TEST_F(Serial, InputFromAPipeWaitsForTheGuest) {
  Pipe in;
  device.limit = 0;  // the guest does not listen yet
  make_stdio(in.read.get(), -1);
  run();
  const auto text = pattern(100000);
  std::jthread writer{[&] {
    write_all(in.write.get(), text);
    in.write = Fd{};
  }};
  EXPECT_TRUE(sleeps_on()) << "input that cannot be taken wakes nobody";
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 16;
  }
  EXPECT_TRUE(device.take(text.size()) == text);
  EXPECT_TRUE(sleeps_on()) << "nor does its end";
}

TEST_F(Serial, InputFromARegularFileIsComplete) {
  const auto path = directory + "/script";
  const auto text = pattern(100000);
  std::ofstream{path, std::ios::binary} << text;
  const auto file = open_file(path, O_RDONLY);
  make_stdio(file.get(), -1);
  run();
  EXPECT_TRUE(device.take(text.size()) == text);
  EXPECT_TRUE(sleeps_on());
}

TEST_F(Serial, NoInputAtAll) {
  make_stdio(-1, -1);
  run();
  put("x");
  EXPECT_TRUE(sleeps_on());
  halt();
  EXPECT_EQ(backend->finish(1s), 0U);
  EXPECT_EQ(backend->trouble(), "");
}

TEST(HostStream, AClosedDescriptorLeadsNowhere) { EXPECT_FALSE(HostStream::shared(9999, HostStream::Direction::In)); }

TEST_F(Serial, ATerminalIsReadEvenWhenTheGuestHangs) {
  Pipe in;
  device.limit = 0;
  std::atomic<std::size_t> typed = 0;
  hooks.typed = [&](std::span<const std::byte> bytes) {
    backend->type(bytes);
    typed += bytes.size();
  };
  make_stdio(in.read.get(), -1);
  run();
  const auto text = pattern(10000);
  write_all(in.write.get(), text);
  EXPECT_TRUE(eventually([&] { return typed == text.size(); }));
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 1U << 20U;
    device.refused = true;
  }
  device.take();
  EXPECT_TRUE(device.take(SerialBackend::kTypeAheadSize) == text.substr(0, SerialBackend::kTypeAheadSize));
  halt();
}

TEST_F(Serial, NothingIsReadBeforeTheLoopRuns) {
  Pipe in;
  write_all(in.write.get(), "early");
  bool called = false;
  hooks.typed = [&](std::span<const std::byte>) { called = true; };
  make_stdio(in.read.get(), -1);
  backend->connect(device);
  EXPECT_FALSE(called) << "whoever is to be told is not ready yet";
}

TEST_F(Serial, ABreakForgetsWhatWasTypedBefore) {
  make({});
  backend->connect(device);
  device.limit = 3;
  backend->type(bytes_of("abcdef"));
  backend->flush_type_ahead();
  EXPECT_EQ(device.take(), "abc");
  backend->type(bytes_of("g"));
  EXPECT_EQ(device.take(), "g");
}

TEST_F(Serial, APtyTalksBothWaysAndOutlivesItsReaders) {
  make({.kind = SerialTarget::Kind::Pty});
  ASSERT_TRUE(backend->pty_path().starts_with("/dev/pts/"));
  run();
  put("before");
  EXPECT_TRUE(sleeps_on()) << "nobody has opened it";
  for (int i = 0; i < 3; ++i) {
    const auto slave = open_file(backend->pty_path(), O_RDWR | O_NOCTTY);
    termios settings{};
    ASSERT_EQ(::tcgetattr(slave.get(), &settings), 0);
    EXPECT_EQ(settings.c_lflag & (ECHO | ICANON), 0U);
    if (i == 0) {
      EXPECT_EQ(read_up_to(slave.get(), 6), "before");
    }
    put("out\n");
    EXPECT_EQ(read_up_to(slave.get(), 4), "out\n");
    write_all(slave.get(), "in\r");
    EXPECT_EQ(device.take(3), "in\r");
  }
  put_slowly(std::string(600000, 'x'));
  EXPECT_TRUE(sleeps_on()) << "nobody reads it";
  halt();
  EXPECT_GT(backend->finish(10ms), 0U);
}

struct SerialSocket : Serial {
  Fd dial() {
    Fd client{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return client;
  }
  std::string path = directory + "/sock";
  SerialTarget target{.kind = SerialTarget::Kind::Socket, .path = path};
};

TEST_F(SerialSocket, KeepsOutputForAClientAndTakesTheNextOne) {
  make(target);
  run();
  put("boot log");
  auto first = dial();
  EXPECT_EQ(read_up_to(first.get(), 8), "boot log");
  auto second = dial();  // waits for its turn
  write_all(second.get(), "two");
  write_all(first.get(), "one");
  EXPECT_EQ(device.take(3), "one");
  first = Fd{};
  EXPECT_EQ(device.take(3), "two");
  put("hello two");
  EXPECT_EQ(read_up_to(second.get(), 9), "hello two");
  second = Fd{};
  EXPECT_TRUE(sleeps_on());
  halt();
  backend.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SerialSocket, AHalfClosedClientStillReads) {
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), "input, then only listening");
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(device.take(26), "input, then only listening");
  EXPECT_TRUE(sleeps_on());
  put("still here");
  EXPECT_EQ(read_up_to(client.get(), 10), "still here");
  client = Fd{};
  client = dial();  // though the guest says nothing, it is noticed that the first one left
  write_all(client.get(), "next");
  EXPECT_EQ(device.take(4), "next");
}

TEST_F(SerialSocket, InputOfAClientThatLeftIsDeliveredFirst) {
  device.limit = 0;
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), pattern(5000));
  client = Fd{};
  EXPECT_TRUE(sleeps_on()) << "a hang-up that must wait wakes nobody";
  client = dial();
  write_all(client.get(), "next");
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 16;
  }
  EXPECT_EQ(device.take(5004), pattern(5000) + "next");
}

TEST_F(SerialSocket, AGuestThatNeverReadsHoldsUpNoClient) {
  device.limit = 0;
  make(target);
  run();
  auto client = dial();
  write_all(client.get(), "a few words");
  client = Fd{};
  put("for whom it concerns");
  client = dial();
  EXPECT_EQ(read_up_to(client.get(), 20), "for whom it concerns");
  {
    const std::lock_guard lock{device.mutex};
    device.limit = 16;
  }
  EXPECT_EQ(device.take(11), "a few words");
}

TEST_F(SerialSocket, AClientThatDoesNotReadLosesTheNewest) {
  make(target);
  run();
  auto client = dial();
  put_slowly(pattern(1U << 20U));
  EXPECT_TRUE(sleeps_on());
  const auto got = read_up_to(client.get(), SerialBackend::kBacklogSize);
  EXPECT_TRUE(got == pattern(1U << 20U).substr(0, got.size()));
  client = Fd{};
  EXPECT_TRUE(sleeps_on());
}

TEST_F(SerialSocket, ReplacesTheFileOfADeadListenerOnly) {
  {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    const Fd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  make(target);
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  EXPECT_TRUE(std::filesystem::exists(path)) << "it is the first one's";
  backend.reset();
  std::ofstream{path} << "precious";
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  EXPECT_EQ(contents(path), "precious");
}

TEST_F(SerialSocket, RefusesAPathThatIsTooLong) {
  target.path = directory + "/" + std::string(120, 'x');
  EXPECT_THROW(SerialBackend(loop, target), HostError);
  target.path = directory + "/missing/sock";
  EXPECT_THROW(SerialBackend(loop, target), HostError);
}

TEST_F(Serial, RefusesFilesItCannotWrite) {
  using Kind = SerialTarget::Kind;
  EXPECT_THROW(SerialBackend(loop, {.kind = Kind::File, .path = directory}), HostError);
  EXPECT_THROW(SerialBackend(loop, {.kind = Kind::File, .path = directory + "/no/log"}), HostError);
  const auto fifo = directory + "/fifo";
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

/// The whole way: host, backend, UART, and a guest's interrupt handler as in Linux' 8250 driver.
TEST_F(Serial, AnEchoingGuestGivesBackEveryByte) {
  Pipe in;
  Pipe out;
  make_stdio(in.read.get(), out.write.get());
  IrqLine irq;
  Uart16550 uart{irq, *backend};
  const auto write = [&uart](std::uint64_t port, unsigned value) {
    const auto byte = static_cast<std::byte>(value);
    uart.write(port, {&byte, 1});
  };
  const auto read = [&uart](std::uint64_t port) {
    std::byte value{};
    uart.read(port, {&value, 1});
    return std::to_integer<unsigned>(value);
  };
  backend->connect(uart);
  run_unconnected();
  const auto text = pattern(200000);
  std::jthread writer{[&] { write_all(in.write.get(), text); }};
  std::jthread guest{[&](const std::stop_token& stopping) {
    write(2, 0x07);  // clears the FIFO: what the host sent too early must not go with it
    write(2, 0x81);
    write(1, 0x05);
    write(4, 0x0b);
    while (!stopping.stop_requested()) {
      pollfd wait{.fd = irq.fd(), .events = POLLIN, .revents = 0};
      ::poll(&wait, 1, 10);
      drain_counter(irq.fd());
      while ((read(2) & 1) == 0) {
        while ((read(5) & 1) != 0) {
          write(0, read(0));
        }
      }
    }
  }};
  EXPECT_TRUE(read_up_to(out.read.get(), text.size()) == text);
  guest.request_stop();
  guest.join();
  halt();  // the UART goes before the backend
}

}  // namespace
}  // namespace martlet
