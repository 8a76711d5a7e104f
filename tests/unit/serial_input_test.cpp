#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "devices/uart16550.h"
#include "tests/unit/serial_support.h"
#include "vmm/base/irq_line.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;

TEST_F(Serial, InputFromAPipeWaitsForTheGuest) {
  Pipe in;
  device.limit = 0;  // the guest does not listen yet
  make_stdio(in.read.get(), -1);
  run();
  const auto text = noise(100000);
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
  const auto path = directory.file("script");
  const auto text = noise(100000);
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
  const auto text = noise(10000);
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
  const auto text = noise(200000);
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
