#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace martlet {

/// Owns one file descriptor.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_{fd} {}
  Fd(Fd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();

  [[nodiscard]] int get() const noexcept { return fd_; }
  /// Whoever takes it closes it.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// open(2) with O_CLOEXEC. Throws HostError "cannot open `path`: …".
[[nodiscard]] Fd open_file(const std::string& path, int flags, unsigned mode = 0);

/// A non-blocking eventfd, counter 0.
[[nodiscard]] Fd make_eventfd();

/// Adds 1 to an eventfd. Never blocks: a full counter already says all there is to say.
void signal_eventfd(int fd) noexcept;

/// Takes an eventfd's or timerfd's counter; 0 when there was nothing to take.
std::uint64_t drain_counter(int fd) noexcept;

/// A duplicate (F_DUPFD_CLOEXEC) of `fd`.
[[nodiscard]] Fd duplicate(int fd);

/// Reads exactly `into.size()` bytes at `offset` of a regular file, or throws HostError that names `path`.
void read_exactly(int fd, std::span<std::byte> into, std::uint64_t offset, const std::string& path);

}  // namespace martlet
