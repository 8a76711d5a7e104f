#include "vmm/kvm/capabilities.h"

#include <fmt/format.h>

#include <cerrno>

#include "vmm/base/error.h"

namespace martlet {

void refuse_without(const Capability& capability) {
  throw HostError{fmt::format("this host's KVM lacks {} ({}): use Linux {} or later", capability.name,
                              capability.purpose, capability.since)};
}

std::string_view fix_for_kvm_open(int error) noexcept {
  switch (error) {
    case ENOENT:
      return "; load KVM (modprobe kvm_intel or kvm_amd) and enable VT-x or AMD-V in the firmware";
    case ENODEV:
    case ENXIO:
      return "; the CPU offers neither VT-x nor AMD-V: enable it in the firmware, or nested virtualisation on the host";
    case EACCES:
    case EPERM:
      return "; join the group that owns it: sudo usermod -aG kvm $USER, then log in again";
    default:
      return "";
  }
}

}  // namespace martlet
