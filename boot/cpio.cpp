#include "boot/cpio.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <limits>
#include <memory>
#include <system_error>

#include "boot/cpio_header.h"
#include "boot/placement.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

constexpr auto kAlignment = CpioHeader::kAlignment;
constexpr std::uint64_t kMaxFileSize = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint32_t kFirstInode = 1;

constexpr std::uint32_t kConsoleMajor = 5;  // Documentation/admin-guide/devices.txt
constexpr std::uint32_t kConsoleMinor = 1;

std::uint32_t clamp_time(std::int64_t seconds) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(seconds, 0, std::numeric_limits<std::uint32_t>::max()));
}

/// Puts what is in a directory into `names`, sorted, and returns 0 or errno. The directory is closed
/// again, so that deep trees do not use up our file descriptors.
int list_directory(const std::string& path, std::vector<std::string>& names) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory{::opendir(path.c_str()), &::closedir};
  if (!directory) {
    return errno;
  }
  errno = 0;
  while (const auto* found = ::readdir(directory.get())) {
    const std::string_view child{found->d_name};
    if (child != "." && child != "..") {
      names.emplace_back(child);
    }
    errno = 0;
  }
  const int error = errno;
  std::ranges::sort(names);
  return error;
}

}  // namespace

CpioTree::CpioTree(std::string root) : root_{std::move(root)} {
  struct stat status {};
  check(::stat(root_.c_str(), &status), "cannot open " + root_);
  if (!S_ISDIR(status.st_mode)) {
    throw HostError{root_ + " is not a directory; --root packs a directory, -i takes a finished initrd"};
  }
  scan("");
  if (unreadable_.count != 0) {
    throw HostError{
        fmt::format("cannot read {} file{} under {}, the first is {} ({}): make them readable, or run as their owner",
                    unreadable_.count, unreadable_.count == 1 ? "" : "s", root_, unreadable_.first,
                    std::generic_category().message(unreadable_.error))};
  }
  add_console();
  measure();
}

std::string CpioTree::host_path(const std::string& name) const { return name.empty() ? root_ : root_ + "/" + name; }

void CpioTree::note_unreadable(const std::string& path, int error) {
  if (unreadable_.count++ == 0) {
    unreadable_.first = path;
    unreadable_.error = error;
  }
}

/// Takes up what is called `name` inside the tree; the empty name is the root itself, which is not
/// archived: its mode and owner stay what the kernel made them.
void CpioTree::scan(const std::string& name) {
  const auto path = host_path(name);
  struct statx status {};
  const int flags = name.empty() ? 0 : AT_SYMLINK_NOFOLLOW;
  if (::statx(AT_FDCWD, path.c_str(), flags, STATX_BASIC_STATS, &status) != 0) {
    return note_unreadable(path, errno);
  }
  if (S_ISSOCK(status.stx_mode)) {
    return;  // means nothing without the process that listens to it
  }
  Entry entry{.name = name,
              .mode = status.stx_mode,
              .uid = status.stx_uid == ::geteuid() ? 0 : status.stx_uid,
              .gid = status.stx_gid == ::getegid() ? 0 : status.stx_gid,
              .mtime = clamp_time(status.stx_mtime.tv_sec),
              .device_major = status.stx_rdev_major,
              .device_minor = status.stx_rdev_minor};
  if (S_ISREG(status.stx_mode)) {
    if (::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) {
      return note_unreadable(path, errno);
    }
    if (status.stx_size > kMaxFileSize) {
      throw HostError{fmt::format("{} has {} bytes; an initramfs holds files below 4 GiB: put it on a disk", path,
                                  status.stx_size)};
    }
    entry.size = status.stx_size;
  }
  if (S_ISLNK(status.stx_mode)) {
    entry.target.resize(PATH_MAX);  // not on the stack: a tree may be 2,000 directories deep
    const auto length = ::readlink(path.c_str(), entry.target.data(), entry.target.size());
    if (length < 0) {
      return note_unreadable(path, errno);
    }
    entry.target.resize(static_cast<std::size_t>(length));
    entry.target.shrink_to_fit();
    entry.size = entry.target.size();
  }
  if (name == "init") {
    // A link may lead anywhere in the tree; only the guest can tell whether it leads to a program.
    has_init_ = S_ISLNK(status.stx_mode) || (S_ISREG(status.stx_mode) && (status.stx_mode & S_IXUSR) != 0);
  }
  if (!name.empty()) {
    // The kernel links files and nodes by their inode number, but never directories or symbolic links.
    const bool linked = status.stx_nlink > 1 && !S_ISDIR(status.stx_mode) && !S_ISLNK(status.stx_mode);
    const HostInode host{std::uint64_t{status.stx_dev_major} << 32U | status.stx_dev_minor, status.stx_ino};
    const auto fresh = static_cast<std::uint32_t>(inodes_.size());
    add(std::move(entry), linked ? linked_.try_emplace(host, fresh).first->second : fresh);
  }
  const bool mounted_here = !name.empty() && (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
  if (S_ISDIR(status.stx_mode) && !mounted_here) {
    scan_directory(name);
  }
}

void CpioTree::scan_directory(const std::string& name) {
  const auto path = host_path(name);
  std::vector<std::string> names;
  if (const int error = list_directory(path, names); error != 0) {
    return note_unreadable(path, error);
  }
  for (const auto& child : names) {
    scan(name.empty() ? child : fmt::format("{}/{}", name, child));
  }
}

void CpioTree::add(Entry entry, std::uint32_t inode) {
  if (inode == inodes_.size()) {
    inodes_.emplace_back();
  }
  inodes_[inode].links++;
  inodes_[inode].last_link = entries_.size();
  entry.inode = inode;
  entries_.push_back(std::move(entry));
}

/// The kernel opens /dev/console as init's stdio before anything could mount a devtmpfs. Kernels bring
/// one in their own initramfs, unless they were built with another one (CONFIG_INITRAMFS_SOURCE).
void CpioTree::add_console() {
  const auto find = [&](std::string_view name) { return std::ranges::find(entries_, name, &Entry::name); };
  const auto add_new = [&](Entry entry) { add(std::move(entry), static_cast<std::uint32_t>(inodes_.size())); };
  const auto dev = find("dev");
  if (find("dev/console") != entries_.end() || (dev != entries_.end() && !S_ISDIR(dev->mode))) {
    return;
  }
  if (dev == entries_.end()) {
    add_new({.name = "dev", .mode = S_IFDIR | 0755});
  }
  add_new(
      {.name = "dev/console", .mode = S_IFCHR | 0600, .device_major = kConsoleMajor, .device_minor = kConsoleMinor});
}

/// Leaves each file's data to the last of its links, as cpio(1) does, and adds everything up.
void CpioTree::measure() {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (inodes_[entries_[i].inode].last_link != i) {
      entries_[i].size = 0;
    }
    size_ += CpioHeader::size_with(entries_[i].name) + align_up(entries_[i].size, kAlignment);
  }
  size_ += CpioHeader::size_with(CpioHeader::kTrailer);
  linked_.clear();
}

void CpioTree::write(std::span<std::byte> into) const {
  for (const auto& entry : entries_) {
    into = CpioHeader{.name = entry.name,
                      .inode = entry.inode + kFirstInode,
                      .mode = entry.mode,
                      .uid = entry.uid,
                      .gid = entry.gid,
                      .links = inodes_[entry.inode].links,
                      .mtime = entry.mtime,
                      .size = entry.size,
                      .device_major = entry.device_major,
                      .device_minor = entry.device_minor}
               .write(into);
    if (S_ISLNK(entry.mode)) {
      std::ranges::copy(std::as_bytes(std::span{entry.target}).first(entry.size), into.begin());
    } else if (entry.size != 0) {
      write_data(entry, into.first(entry.size));
    }
    into = into.subspan(align_up(entry.size, kAlignment));
  }
  static_cast<void>(CpioHeader{.name = CpioHeader::kTrailer}.write(into));
}

void CpioTree::write_data(const Entry& entry, std::span<std::byte> into) const {
  const auto path = host_path(entry.name);
  const auto file = open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  read_exactly(file.get(), into, 0, path);  // complains when there is less than we counted on
  struct stat status {};
  check(::fstat(file.get(), &status), "cannot examine " + path);
  if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) != entry.size) {
    throw HostError{
        fmt::format("{} changed while {} was being packed: try again when nothing writes to it", path, root_)};
  }
}

}  // namespace martlet
