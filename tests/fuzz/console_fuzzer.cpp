// A console, or three named ports, all of its queues, and readers and writers on the host that do what they like.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <vector>

#include "devices/virtio/console.h"
#include "devices/virtio/console_ports.h"
#include "tests/fuzz/fuzz_guest.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

/// Our stdin and stdout are pipes for good, so the console, or the first port, is one that fills.
struct Pipes {
  Pipes() {
    std::signal(SIGPIPE, SIG_IGN);
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    check(::pipe2(in.data(), O_CLOEXEC | O_NONBLOCK), "pipe");
    check(::pipe2(out.data(), O_CLOEXEC | O_NONBLOCK), "pipe");
    check(::dup2(in[0], STDIN_FILENO), "dup2");
    check(::dup2(out[1], STDOUT_FILENO), "dup2");
    ::fcntl(out[1], F_SETPIPE_SZ, 4096);
    to_stdin = Fd{in[1]};
    from_stdout = Fd{out[0]};
  }
  Fd to_stdin;
  Fd from_stdout;
};

void run(FuzzInput input) {
  static const Pipes pipes;
  using Kind = SerialTarget::Kind;
  EventLoop loop;
  FuzzGuest guest;
  std::size_t seen = 0;
  const SerialTarget stdio{.kind = Kind::Stdio, .path = {}};
  const ConsolePort::Hooks hooks{.observe = [&seen](std::span<const std::byte> bytes) { seen += bytes.size(); }};
  std::optional<Console> console;
  std::optional<ConsolePorts> ports;
  const auto which = input.take<std::uint8_t>();
  if ((which & 8U) != 0) {
    console.emplace(loop, stdio, hooks);
  } else {
    const std::vector<PortOptions> options{
        {.name = "stdio", .target = stdio},
        {.name = "log", .target = {.kind = Kind::File, .path = "/dev/null"}},
        {.name = "null"},
    };
    ports.emplace(loop, options, std::vector{hooks});
  }
  VirtioDevice& device = console ? static_cast<VirtioDevice&>(*console) : *ports;
  auto& port = console ? console->port() : ports->port(0);
  const auto queues = device.queue_sizes().size();
  std::vector<Fd> kicks;
  for (std::size_t i = 0; i < queues; ++i) {
    kicks.push_back(make_eventfd());
  }
  std::vector<bool> started(queues);
  const auto start = [&](std::uint64_t features) {
    device.start(kVersion1 | features, guest);
    for (std::uint16_t i = 0; i < queues; ++i) {
      device.start_queue(i, guest.make_queue(i), kicks[i].get());
      started[i] = true;
    }
  };
  const auto stop = [&] {
    device.stop();
    started.assign(queues, false);
  };
  start(which % 8U);
  std::array<std::byte, 65536> chunk{};
  while (!input.empty()) {
    const auto what = input.take<std::uint8_t>();
    const auto queue = static_cast<std::size_t>(what >> 4U) % queues;
    const auto index = static_cast<std::uint16_t>(queue);
    switch (what % 16) {
      case 0:
        if (started[index]) {
          device.stop_queue(index);
          started[index] = false;
        }
        break;
      case 1:
        if (!started[index]) {
          device.start_queue(index, guest.make_queue(index), kicks[index].get());
          started[index] = true;
        }
        break;
      case 2:
        guest.poke(input);
        break;
      case 3:
        stop();
        start(input.take<std::uint8_t>() % 8U);
        break;
      case 4:
        port.type(std::span{chunk}.first(input.take<std::uint16_t>()));
        break;
      case 5: {
        const auto room = port.room();
        const auto size = input.take<std::uint16_t>();
        if (port.receive(std::span{chunk}.first(size)) < std::min<std::size_t>(size, room)) {
          __builtin_trap();
        }
        break;
      }
      case 6:
        if (console) {
          console->resize({.columns = input.take<std::uint8_t>(), .rows = 25});
        }
        break;
      case 7: {
        const auto offset = input.take<std::uint16_t>() % 32U;
        device.write_config(offset, std::span{chunk}.first(4));
        device.read_config(offset, std::span{chunk}.first(what >> 4U));
        break;
      }
      case 8:
        static_cast<void>(::read(pipes.from_stdout.get(), chunk.data(), chunk.size()));
        if (ports) {
          ports->finish(std::chrono::milliseconds{1});
          static_cast<void>(ports->troubles());
        } else {
          static_cast<void>(port.finish(std::chrono::milliseconds{1}));
        }
        break;
      case 9:
        static_cast<void>(::write(pipes.to_stdin.get(), chunk.data(), input.take<std::uint8_t>()));
        port.resume_input();
        break;
      case 10:
      case 11:
        if (started[index]) {
          device.notified(index);
        }
        break;
      default:
        guest.submit(input, index);
    }
  }
  stop();
  while (::read(pipes.from_stdout.get(), chunk.data(), chunk.size()) > 0) {
  }
  while (::read(STDIN_FILENO, chunk.data(), chunk.size()) > 0) {
  }
}

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::run(martlet::virtio::FuzzInput{{data, size}});
  return 0;
}
