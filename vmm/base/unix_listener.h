#pragma once

#include <sys/types.h>

#include <string>

#include "vmm/base/fd.h"

namespace martlet {

/// A listening Unix socket whose file goes when this does.
class UnixListener {
 public:
  /// Replaces the socket file of a listener that is gone. Throws HostError when somebody still listens at
  /// `path`, or something else than a socket is there.
  explicit UnixListener(std::string path);
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener();

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  /// The next client, close-on-exec; none, with errno set, when nobody waits.
  [[nodiscard]] Fd accept() const noexcept;

 private:
  std::string path_;
  Fd socket_;
  ino_t file_ = 0;  // the socket's file, in case another one took its place
};

}  // namespace martlet
