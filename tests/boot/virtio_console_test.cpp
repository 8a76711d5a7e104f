// virtio-console and virtio-rng under unmodified kernels.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <regex>
#include <string>
#include <thread>

#include "tests/boot/virtio_guest.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet::test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::size_t kMiB = 1U << 20U;

Fd connect_to(const std::string& path) {
  Fd socket{check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  check(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  const timeval limit{.tv_sec = 60, .tv_usec = 0};  // of silence
  check(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
  check(::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "SO_SNDTIMEO");
  return socket;
}

/// Sends `out` and receives `expected` bytes at the same time.
std::string exchange(int socket, const std::string& out, std::size_t expected) {
  const std::jthread sender{[&] {
    for (std::size_t sent = 0; sent < out.size();) {
      const auto count = ::send(socket, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) {
        return;
      }
      sent += static_cast<std::size_t>(count);
    }
  }};
  std::string in(expected, '\0');
  std::size_t received = 0;
  while (received < expected) {
    const auto count = ::recv(socket, in.data() + received, expected - received, 0);
    if (count <= 0) {
      break;
    }
    received += static_cast<std::size_t>(count);
  }
  in.resize(received);
  return in;
}

std::string random_bytes(std::size_t count) {
  std::mt19937_64 random{7};
  std::string bytes(count, '\0');
  std::ranges::generate(bytes, [&] { return static_cast<char>(random()); });
  return bytes;
}

// $1 is the device, $2 how many bytes go each way, at once.
constexpr std::string_view kExchange = R"sh(
exchange() {
  dd if=/dev/urandom of=/tmp/mine bs=64k count=$(($2 / 65536)) 2>/dev/null
  await sh -c ": <>$1"
  exec 3<>"$1"
  [ "$1" != /dev/hvc0 ] || stty raw -echo <&3
  say mine sha256sum </tmp/mine
  echo "guest is ready"
  cat /tmp/mine >&3 &
  say theirs sh -c "head -c $2 <&3 | sha256sum"
  wait
}
)sh";

/// The guest's end is `device`, an expression of its shell.
void carries_binary(std::size_t bytes, const std::string& device, Guest guest, const std::string& socket) {
  guest.append = "console=ttyS0";
  guest.script =
      std::string{kVirtioPrelude}.append(kExchange) + fmt::format("exchange {} {}\nkernel_says\n", device, bytes);
  RunningGuest running{guest};
  // Before the guest reads: to a port that nobody holds at the host, reads are at their end at once.
  ASSERT_TRUE(running.process().wait_until([&] { return std::filesystem::exists(socket); })) << running.wait();
  const auto client = connect_to(socket);
  ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
  const auto sent = random_bytes(bytes);
  const auto received = exchange(client.get(), sent, bytes);
  const Report report{running.wait()};
  expect_good(report);
  const TempDir directory;
  const auto sum = [&](const std::string& content) {
    write_file(directory.file("content"), content);
    return sha256_of(directory.file("content")) + "  -";
  };
  EXPECT_EQ(received.size(), bytes);
  EXPECT_THAT(report.section("mine"), ElementsAre(sum(received)));
  EXPECT_THAT(report.section("theirs"), ElementsAre(sum(sent)));
}

/// Linux hands hvc0 16 bytes at a time, and waits for each: in the lab a minute or two.
TEST(VirtioConsole, Hvc0Carries64MiBBothWays) {
  const TempDir directory;
  carries_binary(64 * kMiB, "/dev/hvc0",
                 {.more = {"--console", "socket=" + directory.file("hvc")}, .limit = std::chrono::seconds{600}},
                 directory.file("hvc"));
}

TEST(VirtioConsole, NamedPortCarries64MiBBothWays) {
  const TempDir directory;
  carries_binary(64 * kMiB, "/dev/$(port agent)",
                 {.more = {"--transport", "mmio", "--port", "name=agent,socket=" + directory.file("agent")}},
                 directory.file("agent"));
}

// All that the kernel said, from its first line on the UART to the last on hvc0.
TEST(VirtioConsole, HandOverLosesNoMessage) {
  struct Case {
    std::string kernel;
    std::vector<std::string> ports;
  };
  const std::vector<std::string> named{"--port", "name=log,null"};
  // The driver as a module, and built in.
  for (const auto& [kernel, ports] :
       {Case{"cloud-6.1", {}}, {"cloud-6.1", named}, {"cloud-6.12", {}}, {"cloud-6.12", named}}) {
    SCOPED_TRACE(::testing::Message() << kernel << ", " << ports.size() / 2 << " named ports");
    std::vector<std::string> options{"--console", "stdio"};
    options.insert(options.end(), ports.begin(), ports.end());
    RunningGuest running{{.kernel = kernel,
                          .append = "loglevel=8",
                          .more = options,
                          .script = std::string{kVirtioPrelude}.append(kExchange).append(R"sh(
      await grep -q hvc0 /sys/class/tty/console/active
      exec </dev/console >/dev/console 2>&1
      i=0
      while [ $i -lt 300 ]; do
        i=$((i + 1))
        echo "line $i"
      done
      dmesg >/tmp/log
      dmesg -n 1
      echo "its log:"
      cat /tmp/log
      echo "type!"
      read typed
      echo "typed: $typed"
      )sh")},
                         {.input = Subprocess::Input::Pipe}};
    ASSERT_TRUE(running.process().wait_for("type!")) << running.wait();
    running.process().type("by hand\n");
    const auto ended = running.wait();
    EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
    const auto& out = ended.outcome.out;
    EXPECT_THAT(out, HasSubstr("typed: by hand\n"));
    // The kernel may speak in the midst of a line.
    static const std::regex kKernelMessage{R"(\[ *[0-9]+\.[0-9]{6}\] [^\n]*\n)"};
    const auto lines = std::regex_replace(out, kKernelMessage, "");
    std::size_t at = 0;
    for (int i = 1; i <= 300; ++i) {
      at = lines.find(fmt::format("line {}\n", i), at);
      ASSERT_NE(at, std::string::npos) << "line " << i << ' ' << ended;
    }
    const auto log = out.find("its log:\n");
    ASSERT_NE(log, std::string::npos) << ended;
    const auto said = out.substr(0, log);
    std::istringstream messages{out.substr(log)};
    int count = 0;
    std::string lost;
    std::string message;
    std::getline(messages, message);
    for (; std::getline(messages, message) && !message.starts_with("type!"); ++count) {
      if (said.find(message + "\n") == std::string::npos) {
        lost += message + "\n";
      }
    }
    EXPECT_GT(count, 100);
    EXPECT_EQ(lost, "");
  }
}

TEST(VirtioRng, FeedsTheKernel) {
  for (const auto* transport : {"pci", "mmio"}) {
    const Report report{
        boot({.more = {"--rng", "--transport", transport}, .script = std::string{kVirtioPrelude}.append(R"sh(
      say current cat /sys/class/misc/hw_random/rng_current
      head -c 65536 /dev/hwrng >/tmp/a
      head -c 65536 /dev/hwrng >/tmp/b
      say sizes stat -c %s /tmp/a /tmp/b
      say sums sha256sum /tmp/a /tmp/b
      say packed sh -c "gzip </tmp/a | wc -c"
      kernel_says
      )sh")})};
    expect_good(report);
    EXPECT_THAT(report.section("current"), ElementsAre("virtio_rng.0"));
    EXPECT_THAT(report.section("sizes"), ElementsAre("65536", "65536"));
    const auto& sums = report.section("sums");
    ASSERT_EQ(sums.size(), 2U);
    EXPECT_NE(sums[0].substr(0, 64), sums[1].substr(0, 64));
    ASSERT_EQ(report.section("packed").size(), 1U);
    EXPECT_GE(std::stoi(report.section("packed")[0]), 65536) << "random bytes do not shrink";
  }
}

}  // namespace
}  // namespace martlet::test
