// A small load for disks and networks, a static program: it says how many nanoseconds each request took, or each KiB.
//   load disk PATH read|write random|sequential BYTES DEPTH COUNT
//   load send ADDRESS BYTES | load receive ADDRESS BYTES | load ping ADDRESS COUNT
//   load datagrams ADDRESS COUNT
//   load serve              (the other end of the last four)

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

constexpr std::uint16_t kPort = 7077;
constexpr std::size_t kBlock = 1U << 17U;  // bytes a call, of streams

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

long check(long result, const char* what) {
  if (result < 0) {
    fail(what);
  }
  return result;
}

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

struct DiskLoad {
  std::string path;
  bool write = false;
  bool random = false;
  std::uint64_t bytes = 0;
  std::size_t depth = 1;
  std::uint64_t count = 0;
};

/// Requests one by one, as most programs make them; `depth` in flight.
void disk(const DiskLoad& load) {
  const int fd = static_cast<int>(check(::open(load.path.c_str(), O_RDWR | O_DIRECT), "open"));
  std::uint64_t size = 0;
  check(::ioctl(fd, BLKGETSIZE64, &size), "size");
  aio_context_t context = 0;
  check(::syscall(SYS_io_setup, load.depth, &context), "io_setup");
  std::vector<iocb> requests(load.depth);
  for (auto& request : requests) {
    void* memory = nullptr;
    check(-::posix_memalign(&memory, 4096, load.bytes), "memory");
    request.aio_buf = reinterpret_cast<std::uintptr_t>(memory);
    request.aio_fildes = static_cast<std::uint32_t>(fd);
    request.aio_nbytes = load.bytes;
    request.aio_lio_opcode = load.write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
  }
  std::uint64_t seed = 1;
  std::uint64_t begun = 0;
  const auto submit = [&](iocb& request) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    const std::uint64_t place = load.random ? seed >> 33U : begun;
    request.aio_offset = static_cast<std::int64_t>(place % (size / load.bytes) * load.bytes);
    request.aio_data = reinterpret_cast<std::uintptr_t>(&request);
    iocb* pointer = &request;
    check(::syscall(SYS_io_submit, context, 1, &pointer), "io_submit");
    ++begun;
  };
  const double begin = now();
  for (auto& request : requests) {
    submit(request);
  }
  std::vector<io_event> events(load.depth);
  for (std::uint64_t done = 0; done < load.count;) {
    const long got = check(::syscall(SYS_io_getevents, context, 1, load.depth, events.data(), nullptr), "io_getevents");
    for (long i = 0; i < got; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      if (event.res != static_cast<std::int64_t>(load.bytes)) {
        std::fprintf(stderr, "a request ended with %lld\n", static_cast<long long>(event.res));
        std::exit(1);
      }
      ++done;
      if (begun < load.count) {
        submit(*reinterpret_cast<iocb*>(event.data));
      }
    }
  }
  std::printf("%.0f\n", (now() - begin) / static_cast<double>(load.count));
}

void send_all(int fd, const void* from, std::size_t length) {
  const auto* data = static_cast<const char*>(from);
  while (length != 0) {
    const auto sent = check(::write(fd, data, length), "write");
    data += sent;
    length -= static_cast<std::size_t>(sent);
  }
}

/// Up to `length`; 0 when the other end has closed.
std::size_t receive_some(int fd, void* into, std::size_t length) {
  return static_cast<std::size_t>(check(::read(fd, into, length), "read"));
}

/// What a client wants, of so many bytes.
enum class Wish : std::uint64_t { Take, Give, Echo };
struct Order {
  Wish wish{};
  std::uint64_t amount = 0;
};

void give(int fd, std::uint64_t bytes) {
  const std::vector<char> block(kBlock, 'x');
  for (; bytes != 0; bytes -= std::min<std::uint64_t>(bytes, block.size())) {
    send_all(fd, block.data(), std::min<std::uint64_t>(bytes, block.size()));
  }
}

void take(int fd, std::uint64_t bytes) {
  std::vector<char> block(kBlock);
  while (bytes != 0) {
    const auto got = receive_some(fd, block.data(), std::min<std::uint64_t>(bytes, block.size()));
    if (got == 0) {
      std::fputs("the other end has closed\n", stderr);
      std::exit(1);
    }
    bytes -= got;
  }
}

sockaddr_in address_of(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(kPort);
  address.sin_addr.s_addr = ::inet_addr(text);
  return address;
}

int make_socket() {
  const int fd = static_cast<int>(check(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

/// Nanoseconds for each KiB, or for each echo of a byte.
void client(Wish wish, const char* server, std::uint64_t amount) {
  const int fd = make_socket();
  const auto address = address_of(server);
  check(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  const Order order{wish, amount};
  send_all(fd, &order, sizeof order);
  const double begin = now();
  if (wish == Wish::Give) {
    take(fd, amount);
  } else if (wish == Wish::Take) {
    give(fd, amount);
    take(fd, 1);  // the server has all of it
  } else {
    for (std::uint64_t i = 0; i < amount; ++i) {
      give(fd, 1);
      take(fd, 1);
    }
  }
  std::printf("%.0f\n", (now() - begin) / static_cast<double>(amount) * (wish == Wish::Echo ? 1 : 1024));
}

/// Of 1,400 bytes each, as fast as they go; how many arrive is not looked at.
void datagrams(const char* server, std::uint64_t count) {
  const int fd = static_cast<int>(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  const auto address = address_of(server);
  const std::vector<char> data(1400, 'x');
  const double begin = now();
  for (std::uint64_t i = 0; i < count; ++i) {
    ::sendto(fd, data.data(), data.size(), 0, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  std::printf("%.0f\n", (now() - begin) / static_cast<double>(count));
}

void serve() {
  const int listener = make_socket();
  const auto address = address_of("0.0.0.0");
  const int bin = static_cast<int>(check(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));  // for datagrams: never read
  check(::bind(bin, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
  check(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
  check(::listen(listener, 8), "listen");
  for (;;) {
    const int fd = static_cast<int>(check(::accept(listener, nullptr, nullptr), "accept"));
    const int yes = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    Order order;
    if (receive_some(fd, &order, sizeof order) != sizeof order) {
      std::exit(1);
    }
    if (order.wish == Wish::Give) {
      give(fd, order.amount);
    } else if (order.wish == Wish::Take) {
      take(fd, order.amount);
      give(fd, 1);
    } else {
      for (std::uint64_t i = 0; i < order.amount; ++i) {
        take(fd, 1);
        give(fd, 1);
      }
    }
    ::close(fd);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto number = [&](std::size_t i) { return std::strtoull(words[i].c_str(), nullptr, 10); };
  if (words.size() == 7 && words[0] == "disk") {
    disk({.path = words[1],
          .write = words[2] == "write",
          .random = words[3] == "random",
          .bytes = number(4),
          .depth = number(5),
          .count = number(6)});
  } else if (words.size() == 3 && words[0] == "datagrams") {
    datagrams(words[1].c_str(), number(2));
  } else if (words.size() == 3) {
    const auto wish = words[0] == "send" ? Wish::Take : words[0] == "receive" ? Wish::Give : Wish::Echo;
    client(wish, words[1].c_str(), number(2));
  } else if (words.size() == 1 && words[0] == "serve") {
    serve();
  } else {
    std::fputs("load: see its first lines\n", stderr);
    return 2;
  }
}
