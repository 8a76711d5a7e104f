#include "vmm/base/fd.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/base/error.h"

namespace martlet {

Fd::~Fd() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

Fd open_file(const std::string& path, int flags, unsigned mode) {
  return Fd{check(::open(path.c_str(), flags | O_CLOEXEC, mode), "cannot open " + path)};
}

Fd make_eventfd() { return Fd{check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")}; }

void signal_eventfd(int fd) noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
}

std::uint64_t drain_counter(int fd) noexcept {
  std::uint64_t count = 0;
  return ::read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

Fd duplicate(int fd) { return Fd{check(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "dup")}; }

void read_exactly(int fd, std::span<std::byte> into, std::uint64_t offset, const std::string& path) {
  while (!into.empty()) {
    const auto got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail_errno(errno, "cannot read " + path);
    }
    if (got == 0) {
      throw HostError{path + " ends too early: it was cut short while being read"};
    }
    into = into.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

}  // namespace martlet
