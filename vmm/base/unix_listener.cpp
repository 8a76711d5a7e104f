#include "vmm/base/unix_listener.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

Fd unix_socket() {
  return Fd{check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "cannot make a Unix socket")};
}

ino_t inode_of(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

/// A socket file that refuses connections was left behind by somebody who was killed.
bool is_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) {
    throw HostError{fmt::format(
        "cannot listen at {}: there is something that is not a socket; move it or choose another path", path)};
  }
  const auto probe = unix_socket();
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

UnixListener::UnixListener(std::string path) : path_{std::move(path)}, socket_{unix_socket()} {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) {
    throw HostError{fmt::format("cannot listen at {}: a socket's path has at most {} bytes, this one has {}", path_,
                                sizeof address.sun_path - 1, path_.size())};
  }
  path_.copy(address.sun_path, path_.size());
  const auto bind = [&] { return ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address); };
  int bound = bind();
  if (bound != 0 && errno == EADDRINUSE) {
    if (!is_stale(path_, address)) {
      throw HostError{fmt::format("cannot listen at {}: somebody already does; choose another path", path_)};
    }
    ::unlink(path_.c_str());
    bound = bind();
  }
  check(bound, "cannot listen at " + path_);
  if (::listen(socket_.get(), 1) != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    fail_errno(error, "cannot listen at " + path_);
  }
  file_ = inode_of(path_);
}

UnixListener::~UnixListener() {
  if (inode_of(path_) == file_) {
    ::unlink(path_.c_str());
  }
}

Fd UnixListener::accept() const noexcept {
  return Fd{::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
}

}  // namespace martlet
