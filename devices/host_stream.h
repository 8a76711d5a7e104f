#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <span>

#include "vmm/base/fd.h"

namespace martlet {

/// One end of something that bytes flow into or out of, read and written without ever waiting.
///
/// O_NONBLOCK belongs to the open file, which stdin and stdout share with other programs (the shell that
/// started us reads from the same one), so a descriptor handed to us is never switched to it. A pipe or
/// terminal is opened anew instead, a socket asked call by call, and where neither works poll() goes first.
class HostStream {
 public:
  enum class Direction { In, Out };

  HostStream() = default;
  /// Takes a descriptor that is ours alone and non-blocking, or a socket.
  explicit HostStream(Fd fd);
  /// Our own way to what `fd` leads to. Nothing when `fd` is closed.
  [[nodiscard]] static HostStream shared(int fd, Direction direction);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(fd_); }

  /// Bytes read, 0 at the end; or a negative errno, -EAGAIN when it would have to wait.
  [[nodiscard]] std::ptrdiff_t read(std::span<std::byte> into) const noexcept;
  /// Bytes written; or a negative errno, -EAGAIN when it would have to wait. EPIPE comes with SIGPIPE,
  /// except on sockets.
  [[nodiscard]] std::ptrdiff_t write(std::span<const std::byte> bytes) const noexcept;
  /// The same with bytes that lie in several places.
  [[nodiscard]] std::ptrdiff_t read(std::span<const iovec> into) const noexcept;
  [[nodiscard]] std::ptrdiff_t write(std::span<const iovec> parts) const noexcept;
  /// Waits until it can be written to; false when the time ran out first.
  [[nodiscard]] bool wait_writable(int milliseconds) const noexcept;

 private:
  enum class Way { NonBlocking, Socket, PollFirst };

  Fd fd_;
  Way way_ = Way::NonBlocking;
};

}  // namespace martlet
