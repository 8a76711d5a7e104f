#pragma once

#include <cstddef>
#include <string>

#include "vmm/base/fd.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// ioctl(2) that is repeated when a signal interrupts it. Throws HostError "`what`: …".
int kvm_ioctl(int fd, unsigned long request, unsigned long argument, const char* what);
template <class T>
int kvm_ioctl(int fd, unsigned long request, T* argument, const char* what) {
  return kvm_ioctl(fd, request, reinterpret_cast<unsigned long>(argument), what);
}

/// /dev/kvm: what this host's KVM can do, and the way to new VMs.
class KvmSystem {
 public:
  /// Opens /dev/kvm and checks that it is the KVM that Martlet needs. Throws HostError with the fix.
  explicit KvmSystem(const std::string& path = "/dev/kvm");

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// KVM_CHECK_EXTENSION: 0 when absent, else a positive number whose meaning is the capability's.
  [[nodiscard]] int extension(int capability) const noexcept;
  /// Bytes to map for each vCPU's struct kvm_run and what follows it.
  [[nodiscard]] std::size_t run_size() const;
  [[nodiscard]] Fd create_vm() const;

 private:
  Fd fd_;
};

}  // namespace martlet
