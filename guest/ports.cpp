#include "guest/ports.h"

#include <asm/poll.h>
#include <asm/stat.h>
#include <linux/stat.h>

#include "guest/drivers.h"
#include "guest/system.h"
#include "guest/trouble.h"

namespace guest {
namespace {

constexpr std::string_view kPorts = "/sys/class/virtio-ports";
constexpr int kPatienceMs = 10'000;  // after its driver is there
constexpr int kStepMs = 10;

struct Entry {  // struct linux_dirent64, which no header has
  unsigned long inode;
  long offset;
  unsigned short size;
  unsigned char type;
  char name[1];
};

/// A sysfs attribute without its newline.
Line attribute(std::string_view device, std::string_view name) noexcept {
  Line path;
  path << kPorts << "/" << device << "/" << name;
  Line value;
  if (const auto fd = open(path.c_str(), O_RDONLY); fd >= 0) {
    char text[128];
    const auto size = read(fd, text, sizeof text);
    std::string_view all{text, size > 0 ? static_cast<std::size_t>(size) : 0};
    value << take_until(all, '\n');
    close(fd);
  }
  return value;
}

unsigned number(std::string_view text) noexcept {
  unsigned value = 0;
  for (const char c : text) {
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value;
}

/// The name in sysfs of the port called `name`; empty while there is none.
Line find_port(std::string_view name) noexcept {
  Line found;
  Line path;
  const auto directory = open((path << kPorts).c_str(), O_RDONLY | O_DIRECTORY);
  alignas(Entry) char entries[2048];
  for (long size = 0; directory >= 0 && (size = call(__NR_getdents64, directory, entries, sizeof entries)) > 0;) {
    for (long at = 0; at < size; at += reinterpret_cast<const Entry*>(entries + at)->size) {
      const std::string_view device{entries + at + offsetof(Entry, name)};
      if (found.view().empty() && attribute(device, "name").view() == name) {
        found << device;
      }
    }
  }
  close(directory);
  return found;
}

/// By a node of our own: whether there is a devtmpfs or udev does not matter.
long open_port(std::string_view device, int flags) noexcept {
  constexpr const char* kNode = "/.martlet/port";
  const auto numbers = attribute(device, "dev");  // MAJOR:MINOR
  auto minor = numbers.view();
  const auto major = number(take_until(minor, ':'));
  call(__NR_mknod, kNode, S_IFCHR | 0600, major << 8 | number(minor));
  const auto fd = open(kNode, flags | O_NONBLOCK);
  call(__NR_unlink, kNode);
  return fd;
}

/// Why there are no ports, as far as the kernel shows.
Line what_is_missing(const Line& trouble) noexcept {
  Line line;
  line << "the guest has no virtio console driver: ";
  const auto release = kernel_release();
  if (!exists("/sys/class")) {
    line << "there is no sysfs (CONFIG_SYSFS) to find it by";
  } else if (!trouble.view().empty()) {
    line << trouble.view();
  } else if (!exists("/sys/bus/virtio/drivers/virtio_console")) {
    line << "kernel " << release.view() << " has none built in (CONFIG_VIRTIO_CONSOLE), and the root has none in"
         << " /lib/modules/" << release.view();
  } else {
    line << "virtio_console of kernel " << release.view() << " found no device within 10 s; is there a driver of the"
         << " transport (CONFIG_VIRTIO_PCI, or CONFIG_VIRTIO_MMIO with --transport mmio)?";
  }
  return line;
}

bool host_is_there(long fd) noexcept {
  struct {
    int fd;
    short events;
    short happened;
  } poll{static_cast<int>(fd), POLLOUT, 0};
  call(__NR_poll, &poll, 1, 0);
  return (poll.happened & POLLHUP) == 0;
}

}  // namespace

Ports open_ports(char** environment) noexcept {
  const auto trouble = load_drivers(environment);
  int left = exists("/sys/bus/virtio/drivers/virtio_console") ? kPatienceMs : 0;
  const auto open_next = [&](std::string_view name, int flags) noexcept {
    for (;; left -= kStepMs) {
      if (const auto device = find_port(name); !device.view().empty()) {
        return open_port(device.view(), flags);
      }
      if (left <= 0) {
        give_up(what_is_missing(trouble));
      }
      sleep_ms(kStepMs);
    }
  };
  long fds[4];
  fds[3] = open_next("martlet.status", O_WRONLY);
  fds[1] = open_next("martlet.stdout", O_WRONLY);
  fds[2] = open_next("martlet.stderr", O_WRONLY);
  // To a port that its host has not opened, a reader's end is now. The host opens them in order, stdin first; so once
  // the last one is open, stdin is open, or was closed for good.
  for (int i = 1; i < 4; ++i) {
    while (fds[i] >= 0 && !host_is_there(fds[i])) {
      sleep_ms(kStepMs);
    }
  }
  fds[0] = open_next("martlet.stdin", O_RDONLY);
  for (const long fd : fds) {
    if (fd < 0) {
      Line line;
      give_up(line << "the guest cannot open its virtio ports: error " << -fd);
    }
  }
  return {fds[0], fds[1], fds[2], fds[3]};
}

}  // namespace guest
