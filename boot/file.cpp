#include "boot/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "vmm/base/error.h"

namespace martlet {

RegularFile open_regular(const std::string& path, std::string_view expected) {
  RegularFile file{path, open_file(path, O_RDONLY | O_NONBLOCK), 0};  // a FIFO without a writer must not hang us
  struct stat status {};
  check(::fstat(file.fd.get(), &status), "cannot examine " + path);
  if (S_ISDIR(status.st_mode)) {
    throw HostError{fmt::format("{} is a directory; expected {}", path, expected)};
  }
  if (!S_ISREG(status.st_mode)) {
    throw HostError{fmt::format("{} is not a regular file; expected {}", path, expected)};
  }
  if (status.st_size == 0) {
    throw HostError{fmt::format("{} is empty; expected {}", path, expected)};
  }
  file.size = static_cast<std::uint64_t>(status.st_size);
  return file;
}

}  // namespace martlet
