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
constexpr off_t kWrites = 101;
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

struct flock bytes(short type, off_t start, off_t count) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = count;
  return lock;
}

enum class Outcome { Ours, Taken };

Outcome lock_writer(int fd) {
  auto all = bytes(F_WRLCK, kFirstByte, kByteCount);
  const bool taken = ::fcntl(fd, F_OFD_SETLK, &all) != 0 && (errno == EAGAIN || errno == EACCES);
  return taken ? Outcome::Taken : Outcome::Ours;  // other errors: a file system without locks
}

Outcome lock_reader(int fd) {
  auto mine = bytes(F_RDLCK, kNobodyElseWrites, 1);
  if (::fcntl(fd, F_OFD_SETLK, &mine) != 0) {
    return errno == EAGAIN || errno == EACCES ? Outcome::Taken : Outcome::Ours;
  }
  // A writer of QEMU's holds its bytes for reading: only who asks to write there hears of it.
  auto writer = bytes(F_WRLCK, kWrites, 1);
  return ::fcntl(fd, F_OFD_GETLK, &writer) == 0 && writer.l_type != F_UNLCK ? Outcome::Taken : Outcome::Ours;
}

}  // namespace

void lock_image(int fd, const std::string& path, DiskAccess access) {
  if (access == DiskAccess::ReadWrite) {
    if (lock_writer(fd) == Outcome::Taken) {
      throw HostError{
          fmt::format("disk {}: {} has it open; end that first, or add overlay=tmp or readonly=on if it "
                      "only reads",
                      path, find_holder(fd))};
    }
  } else if (lock_reader(fd) == Outcome::Taken) {
    throw HostError{fmt::format("disk {}: {} has it open for writing; end that first", path, find_holder(fd))};
  }
}

}  // namespace martlet::virtio
