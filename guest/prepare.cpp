#include "guest/prepare.h"

#include <linux/stat.h>

#include "guest/system.h"

namespace guest {
namespace {

struct Mount {
  const char* type;
  const char* where;
  int mode;
  const char* options;
};
// /tmp and /run are in memory as all of the root is: to be there is enough.
constexpr Mount kMounts[] = {
    {"proc", "/proc", 0555, nullptr},         {"sysfs", "/sys", 0555, nullptr},
    {"devtmpfs", "/dev", 0755, "mode=755"},   {"devpts", "/dev/pts", 0755, "mode=620,ptmxmode=666"},
    {"tmpfs", "/dev/shm", 0755, "mode=1777"},
};

struct Node {
  const char* path;
  unsigned device;  // Documentation/admin-guide/devices.txt
};
constexpr Node kNodes[] = {{"/dev/null", 0x103}, {"/dev/zero", 0x105}, {"/dev/urandom", 0x109}};

constexpr const char* kLinks[][2] = {
    {"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}};

void raise_loopback() noexcept {
  constexpr int kInet = 2;               // AF_INET
  constexpr int kDatagram = 2;           // SOCK_DGRAM
  constexpr int kSetFlags = 0x8914;      // SIOCSIFFLAGS
  constexpr short kUpAndRunning = 0x41;  // IFF_UP | IFF_RUNNING
  struct {
    char name[16] = "lo";
    short flags = kUpAndRunning;
    char rest[22] = {};
  } request;  // struct ifreq
  const auto socket = call(__NR_socket, kInet, kDatagram, 0);
  call(__NR_ioctl, socket, kSetFlags, &request);
  close(socket);
}

}  // namespace

/// What is there already, or cannot be, stays as it is: what needs it will say so.
void prepare_system() noexcept {
  call(__NR_umask, 0);
  for (const auto& mount : kMounts) {
    call(__NR_mkdir, mount.where, mount.mode);
    call(__NR_mount, mount.type, mount.where, mount.type, 0, mount.options);
  }
  for (const auto& node : kNodes) {
    call(__NR_mknod, node.path, S_IFCHR | 0666, node.device);
  }
  for (const auto& [target, path] : kLinks) {
    call(__NR_symlink, target, path);
  }
  call(__NR_mkdir, "/run", 0755);
  call(__NR_mkdir, "/tmp", 01777);
  call(__NR_umask, 022);
  raise_loopback();
}

}  // namespace guest
