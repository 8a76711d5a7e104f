#include "guest/drivers.h"

#include <linux/module.h>
#include <linux/utsname.h>

#include "guest/system.h"

namespace guest {
namespace {

// The console's first, then what devices the user may have given the machine.
constexpr const char* kDrivers[] = {"virtio_pci", "virtio_mmio", "virtio_console",
                                    "virtio_blk", "virtio_net",  "virtio_rng"};

struct File {
  const char* bytes = nullptr;
  std::size_t size = 0;
};

/// The whole of it, read only once it is looked at.
File map(const char* path) noexcept {
  constexpr int kRead = 1;     // PROT_READ
  constexpr int kPrivate = 2;  // MAP_PRIVATE
  const auto fd = open(path, O_RDONLY);
  if (fd < 0) {
    return {};
  }
  const auto size = call(__NR_lseek, fd, 0, 2 /* SEEK_END */);
  const auto at = size > 0 ? call(__NR_mmap, nullptr, size, kRead, kPrivate, fd, 0) : -1;
  close(fd);
  return at > 0 ? File{reinterpret_cast<const char*>(at), static_cast<std::size_t>(size)} : File{};
}

long load_file(std::string_view directory, std::string_view file) noexcept {
  Line path;
  path << directory << "/" << file;
  const auto fd = open(path.c_str(), O_RDONLY);
  if (fd < 0) {
    return fd;
  }
  const int flags = file.ends_with(".ko") ? 0 : MODULE_INIT_COMPRESSED_FILE;
  const auto result = call(__NR_finit_module, fd, "", flags);
  close(fd);
  return result == -EEXIST ? 0 : result;
}

/// Of a line of modules.dep: the dependencies from the last to the first, then the module.
long load_line(std::string_view directory, std::string_view line) noexcept {
  const auto module = take_until(line, ':');
  while (!line.empty()) {
    const auto space = line.rfind(' ');
    auto file = line;
    file.remove_prefix(space + 1);  // npos + 1 is 0
    line = {line.data(), space == std::string_view::npos ? 0 : space};
    if (const auto result = file.empty() ? 0 : load_file(directory, file); result < 0) {
      return result;
    }
  }
  return load_file(directory, module);
}

bool run_modprobe(char** environment) noexcept {
  for (const auto* program : {"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"}) {
    if (!exists(program)) {
      continue;
    }
    const auto child = call(__NR_fork);
    if (child == 0) {
      const char* words[] = {program,     "-qa",       kDrivers[0], kDrivers[1], kDrivers[2],
                             kDrivers[3], kDrivers[4], kDrivers[5], nullptr};
      call(__NR_execve, program, words, environment);
      call(__NR_exit_group, 127);
    }
    int status = -1;
    call(__NR_wait4, child, &status, 0, nullptr);
    return status == 0;
  }
  return false;
}

}  // namespace

Line kernel_release() noexcept {
  new_utsname name{};
  call(__NR_uname, &name);
  Line release;
  return release << name.release;
}

Line load_drivers(char** environment) noexcept {
  Line trouble;
  const auto release = kernel_release();
  for (const auto* modules : {"/lib/modules/", "/usr/lib/modules/"}) {
    Line directory;
    directory << modules << release.view();
    Line list;
    list << directory.view() << "/modules.dep";
    const auto dependencies = map(list.c_str());
    if (dependencies.bytes == nullptr) {
      continue;
    }
    for (const auto* driver : kDrivers) {
      const auto line = find_module({dependencies.bytes, dependencies.size}, driver);
      if (const auto result = line.empty() ? 0 : load_line(directory.view(), line);
          result < 0 && trouble.view().empty()) {
        trouble << "cannot load the module " << driver << " of " << directory.view() << ": error " << -result;
      }
    }
    return trouble.view().empty() || run_modprobe(environment) ? Line{} : trouble;
  }
  run_modprobe(environment);
  return {};
}

}  // namespace guest
