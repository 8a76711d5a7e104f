#include "tests/support/line.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

#include "vmm/base/error.h"

namespace martlet::test {

void Line::type(std::string_view text) const {
  while (!text.empty()) {
    const auto taken = ::write(fd_.get(), text.data(), text.size());
    if (taken <= 0) {
      throw HostError{"nobody takes what is typed"};
    }
    text.remove_prefix(static_cast<std::size_t>(taken));
  }
}

bool Line::wait_for(std::string_view text) {
  constexpr int kMinute = 60'000;
  pollfd polled{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  while (seen_.find(text) == std::string::npos) {
    std::array<char, 4096> chunk{};
    if (::poll(&polled, 1, kMinute) != 1) {
      return false;
    }
    const auto got = ::read(fd_.get(), chunk.data(), chunk.size());
    if (got <= 0) {
      return false;
    }
    seen_.append(chunk.data(), static_cast<std::size_t>(got));
  }
  return true;
}

Fd connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  for (int attempt = 0; attempt < 12'000; ++attempt) {
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      return fd;
    }
    ::usleep(10'000);
  }
  throw HostError{"nobody listens at " + path};
}

}  // namespace martlet::test
