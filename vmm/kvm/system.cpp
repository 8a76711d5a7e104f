#include "vmm/kvm/system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <system_error>

#include "vmm/base/error.h"
#include "vmm/kvm/capabilities.h"

namespace martlet {
namespace {

Fd open_kvm(const std::string& path) {
  Fd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  if (!fd) {
    const int error = errno;
    throw HostError{
        fmt::format("cannot open {}: {}{}", path, std::generic_category().message(error), fix_for_kvm_open(error))};
  }
  return fd;
}

}  // namespace

int kvm_ioctl(int fd, unsigned long request, unsigned long argument, const char* what) {
  for (;;) {
    const int result = ::ioctl(fd, request, argument);
    if (result >= 0 || errno != EINTR) {
      return check(result, what);
    }
  }
}

KvmSystem::KvmSystem(const std::string& path) : fd_{open_kvm(path)} {
  const int version = ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    throw HostError{version < 0
                        ? fmt::format("{} is not a KVM device", path)
                        : fmt::format("{} speaks KVM API version {}, Martlet needs {}: use Linux 2.6.22 or later", path,
                                      version, KVM_API_VERSION)};
  }
  require_capabilities([this](int capability) { return extension(capability); });
}

int KvmSystem::extension(int capability) const noexcept { return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability); }

std::size_t KvmSystem::run_size() const {
  return static_cast<std::size_t>(kvm_ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0UL, "KVM_GET_VCPU_MMAP_SIZE"));
}

Fd KvmSystem::create_vm() const { return Fd{kvm_ioctl(fd_.get(), KVM_CREATE_VM, 0UL, "KVM_CREATE_VM")}; }

}  // namespace martlet
