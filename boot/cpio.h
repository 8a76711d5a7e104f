#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace martlet {

/// A directory tree that will become an initramfs: a "newc" cpio archive
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
///
/// Scanned once, so that its exact size is known; then written straight to where it belongs. Names
/// are sorted and inodes renumbered: the same tree always gives the same archive. Owners, modes and
/// times are the tree's own, except that what belongs to the user who runs Martlet belongs to root in
/// the guest. Sockets are left out, and what is mounted inside the tree (its /proc, say) is an empty
/// directory. /dev/console is added where it is missing, or the guest's init would have no stdio.
class CpioTree {
 public:
  /// Throws HostError when `root` is no directory or holds what cannot be read or archived.
  explicit CpioTree(std::string root);

  /// Exact bytes of the archive, a multiple of 4.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  /// True when the tree has an /init that the kernel can run.
  [[nodiscard]] bool has_init() const noexcept { return has_init_; }

  /// Writes the archive to `into`, size() zero bytes. Throws HostError when a file has changed since the scan.
  void write(std::span<std::byte> into) const;

 private:
  struct Entry {
    std::string name;  ///< inside the archive: no slash in front
    std::uint32_t mode = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t mtime = 0;
    std::uint32_t device_major = 0;  ///< of a device node
    std::uint32_t device_minor = 0;
    std::uint32_t inode = 0;  ///< index into inodes_
    std::uint64_t size = 0;   ///< of its data: the file's for the last of its links, else 0
    std::string target{};     ///< of a symbolic link
  };
  struct Inode {
    std::uint32_t links = 0;    ///< inside the archive
    std::size_t last_link = 0;  ///< index into entries_: the one that carries the data
  };
  using HostInode = std::pair<std::uint64_t, std::uint64_t>;  ///< device, inode number
  struct Unreadable {
    std::uint64_t count = 0;
    std::string first;
    int error = 0;
  };

  void scan(const std::string& name);
  void scan_directory(const std::string& name);
  void add(Entry entry, std::uint32_t inode);
  void add_console();
  void measure();
  void write_data(const Entry& entry, std::span<std::byte> into) const;
  void note_unreadable(const std::string& path, int error);
  [[nodiscard]] std::string host_path(const std::string& name) const;

  std::string root_;
  std::vector<Entry> entries_;
  std::vector<Inode> inodes_;
  std::map<HostInode, std::uint32_t> linked_;  ///< files with several links → inodes_
  Unreadable unreadable_;
  std::uint64_t size_ = 0;
  bool has_init_ = false;
};

}  // namespace martlet
