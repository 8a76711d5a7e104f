#include "vmm/x86_64/cpuid.h"

#include <asm/kvm_para.h>
#include <cpuid.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "vmm/base/error.h"
#include "vmm/kvm/table.h"

namespace martlet {
namespace {

enum Leaf : std::uint32_t {
  kMaxBasic = 0x0,
  kFeatures = 0x1,
  kIntelCaches = 0x4,
  kExtendedFeatures = 0x7,
  kTopology = 0xb,
  kTopologyV2 = 0x1f,
  kKvmFeatures = KVM_CPUID_FEATURES,
  kAmdFeatures = 0x80000001,
  kAmdL1 = 0x80000005,
  kAmdSizes = 0x80000008,
  kAmdCaches = 0x8000001d,
  kAmdTopology = 0x8000001e,
};

constexpr std::uint32_t kHyperThreading = 1U << 28U;  // leaf 1 EDX: more than one logical CPU in the package
constexpr std::uint32_t kTscDeadline = 1U << 24U;     // leaf 1 ECX
constexpr std::uint32_t kHypervisor = 1U << 31U;      // leaf 1 ECX
constexpr std::uint32_t kCacheType = 0x1f;            // leaves 4 and 0x8000001D EAX: 0 ends the list
constexpr std::uint32_t kMaxXapicId = 254;

std::array<std::uint32_t, 4> host_cpuid(std::uint32_t leaf, std::uint32_t index) {
  std::array<std::uint32_t, 4> reg{};
  __get_cpuid_count(leaf, index, &reg[0], &reg[1], &reg[2], &reg[3]);  // zeroes where there is no such leaf
  return reg;
}

/// `value` in bits [low, low + width) of `reg`, as large as fits.
constexpr void put(std::uint32_t& reg, unsigned low, unsigned width, std::uint32_t value) {
  const std::uint32_t mask = (1U << width) - 1;
  reg = (reg & ~(mask << low)) | (std::min(value, mask) << low);
}

/// Bits that hold the number of one of `count` things.
constexpr std::uint32_t id_width(std::uint32_t count) { return static_cast<std::uint32_t>(std::bit_width(count - 1)); }

/// Leaves 4 and 0x8000001D alike: the last-level cache is the package's, the others are each core's own.
void share_caches(kvm_cpuid_entry2& entry, std::uint32_t cpus) {
  const std::uint32_t level = (entry.eax >> 5U) & 7U;
  const std::uint32_t sharing = level >= 3 ? 1U << id_width(cpus) : 1;
  put(entry.eax, 14, 12, sharing - 1);
}

/// Leaves 0xB and 0x1F: one thread a core, all cores in one package.
void add_topology(std::vector<kvm_cpuid_entry2>& entries, Leaf leaf, const CpuidRequest& request) {
  enum LevelType : std::uint32_t { kNone = 0, kThread = 1, kCore = 2 };
  const auto level = [&](std::uint32_t index, LevelType type, std::uint32_t shift, std::uint32_t count) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = index;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = shift;
    put(entry.ebx, 0, 16, count);
    entry.ecx = (type << 8U) | index;
    entry.edx = request.apic_id;
    entries.push_back(entry);
  };
  level(0, kThread, 0, 1);
  level(1, kCore, id_width(request.cpus), request.cpus);
  level(2, kNone, 0, 0);
}

}  // namespace

void mend_amd(std::vector<kvm_cpuid_entry2>& entries, HostCpuid host) {
  constexpr std::uint32_t kAuthenticAmd = 0x68747541;       // "Auth", leaf 0 EBX
  constexpr std::uint32_t kHygonGenuine = 0x6f677948;       // "Hygo"
  constexpr std::uint32_t kArchCapabilities = 1U << 29U;    // leaf 7 EDX
  constexpr std::uint32_t kTopologyExtensions = 1U << 22U;  // leaf 0x80000001 ECX: leaf 0x8000001D is there
  constexpr std::uint32_t kMostCaches = 8;
  const auto vendor = host(kMaxBasic, 0)[1];
  if (vendor != kAuthenticAmd && vendor != kHygonGenuine) {
    return;
  }
  std::erase_if(entries, [](const auto& entry) { return entry.function == kAmdL1 || entry.function == kAmdCaches; });
  for (auto& entry : entries) {
    if (entry.function == kExtendedFeatures && entry.index == 0) {
      entry.edx &= ~kArchCapabilities;
    }
  }
  const auto add = [&](Leaf leaf, std::uint32_t index, std::uint32_t flags) {
    const auto [eax, ebx, ecx, edx] = host(leaf, index);
    entries.push_back({.function = leaf,
                       .index = index,
                       .flags = flags,
                       .eax = eax,
                       .ebx = ebx,
                       .ecx = ecx,
                       .edx = edx,
                       .padding = {}});
    return (eax & kCacheType) != 0;
  };
  add(kAmdL1, 0, 0);
  if ((host(kAmdFeatures, 0)[2] & kTopologyExtensions) != 0) {
    for (std::uint32_t index = 0; index < kMostCaches && add(kAmdCaches, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
         ++index) {
    }
  }
}

std::vector<kvm_cpuid_entry2> supported_cpuid(const KvmSystem& system) {
  for (std::uint32_t room = 256; room <= 65536; room *= 2) {
    KvmTable<kvm_cpuid2, kvm_cpuid_entry2> table{room};
    table.header().nent = room;
    if (::ioctl(system.fd(), KVM_GET_SUPPORTED_CPUID, &table.header()) == 0) {
      const auto found = table.entries().first(table.header().nent);
      std::vector<kvm_cpuid_entry2> entries{found.begin(), found.end()};
      mend_amd(entries, host_cpuid);
      return entries;
    }
    if (errno != E2BIG) {
      break;
    }
  }
  fail_errno(errno, "KVM_GET_SUPPORTED_CPUID");
}

std::vector<kvm_cpuid_entry2> make_cpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidRequest& request) {
  std::vector<kvm_cpuid_entry2> entries;
  entries.reserve(supported.size() + 6);
  bool has_topology_v2 = false;
  for (auto entry : supported) {
    switch (entry.function) {
      case kMaxBasic:
        entry.eax = std::max<std::uint32_t>(entry.eax, kTopology);
        break;
      case kFeatures:
        put(entry.ebx, 24, 8, request.apic_id & 0xffU);
        put(entry.ebx, 16, 8, request.cpus);
        entry.edx = request.cpus > 1 ? entry.edx | kHyperThreading : entry.edx & ~kHyperThreading;
        entry.ecx = (request.tsc_deadline ? entry.ecx | kTscDeadline : entry.ecx & ~kTscDeadline) | kHypervisor;
        break;
      case kIntelCaches:
        if ((entry.eax & kCacheType) != 0) {
          share_caches(entry, request.cpus);
          put(entry.eax, 26, 6, (1U << id_width(request.cpus)) - 1);
        }
        break;
      case kTopology:
        continue;
      case kTopologyV2:
        has_topology_v2 = true;
        continue;
      case kKvmFeatures:
        // APIC ids above 254 in interrupt messages. Only where they exist: the in-kernel IO-APIC has no such
        // field, so its interrupts must stay on the first 255 CPUs.
        if (request.cpus > kMaxXapicId + 1) {
          entry.eax |= 1U << KVM_FEATURE_MSI_EXT_DEST_ID;
        }
        break;
      case kAmdSizes:
        put(entry.ecx, 0, 8, request.cpus - 1);
        put(entry.ecx, 12, 4, id_width(request.cpus));
        break;
      case kAmdCaches:
        if ((entry.eax & kCacheType) != 0) {
          share_caches(entry, request.cpus);
        }
        break;
      case kAmdTopology:
        entry.eax = request.apic_id;
        put(entry.ebx, 0, 8, request.apic_id & 0xffU);  // core id
        put(entry.ebx, 8, 8, 0);                        // threads per core - 1
        entry.ecx = 0;                                  // one node
        break;
      default:
        break;
    }
    entries.push_back(entry);
  }
  add_topology(entries, kTopology, request);
  if (has_topology_v2) {
    add_topology(entries, kTopologyV2, request);
  }
  return entries;
}

}  // namespace martlet
