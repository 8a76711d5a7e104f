#include "devices/virtio/disk_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

namespace fs = std::filesystem;

// QEMU locks single bytes for reading: 100 + i when it does what permission i allows, 200 + i when nobody
// else may. Permission 1 is to write. A reader here says "nobody may write"; a writer locks all of these bytes
// for writing, which collides with whoever has the image open in whichever way.
constexpr off_t kNobodyElseWrites = 201;
constexpr off_t kFirstByte = 100;
constexpr off_t kByteCount = 200;

/// Whether /proc/PID/fdinfo/N tells of a lock.
bool holds_lock(const fs::path& fdinfo) {
  std::ifstream file{fdinfo};
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("lock:")) {
      return true;
    }
  }
  return false;
}

bool is_number(std::string_view text) {
  int number = 0;
  return std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc{};
}

/// The kernel does not tell who holds a lock of an open file, but each process tells what it has open.
std::string find_holder(int fd) {
  struct stat image {};
  if (::fstat(fd, &image) != 0) {
    return "another process";
  }
  std::error_code error;
  for (fs::directory_iterator process{"/proc", error}, end; !error && process != end; process.increment(error)) {
    const auto pid = process->path().filename().string();
    if (!is_number(pid)) {
      continue;
    }
    const bool self = pid == std::to_string(::getpid());
    std::error_code denied;
    for (fs::directory_iterator open{process->path() / "fd", denied}; !denied && open != end; open.increment(denied)) {
      struct stat other {};
      const auto name = open->path().filename();
      if ((self && name == std::to_string(fd)) || ::stat(open->path().c_str(), &other) != 0 ||
          other.st_dev != image.st_dev || other.st_ino != image.st_ino ||
          !holds_lock(process->path() / "fdinfo" / name)) {
        continue;
      }
      std::string command;
      std::getline(std::ifstream{process->path() / "comm"}, command);
      return self ? "this very command" : fmt::format("process {} ({})", pid, command);
    }
  }
  return "another process";
}

}  // namespace

void lock_image(int fd, const std::string& path, DiskAccess access) {
  const bool writing = access == DiskAccess::ReadWrite;
  struct flock lock {};
  lock.l_type = writing ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = writing ? kFirstByte : kNobodyElseWrites;
  lock.l_len = writing ? kByteCount : 1;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES)) {
    return;  // the latter: a file system without locks
  }
  throw HostError{writing ? fmt::format("disk {}: {} has it open; end that first, or add overlay=tmp or readonly=on if "
                                        "it only reads",
                                        path, find_holder(fd))
                          : fmt::format("disk {}: {} has it open for writing; end that first", path, find_holder(fd))};
}

}  // namespace martlet::virtio
