#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace martlet {

/// One of KVM's own counters.
struct KvmCounter {
  std::string name;
  std::uint64_t value = 0;
};

/// Reads KVM's counters for a VM's or a vCPU's descriptor (KVM API documentation, section 4.133,
/// KVM_GET_STATS_FD); histograms are left out. Empty when this KVM has none.
[[nodiscard]] std::vector<KvmCounter> read_kvm_counters(int fd);

}  // namespace martlet
