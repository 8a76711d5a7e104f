#include "devices/virtio/vhost_net.h"

#define VIRTIO_RING_NO_LEGACY  // the rest of <linux/virtio_ring.h> is not C++
#include <fcntl.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "devices/virtio/net_wire.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

/// What we know how to hand over; the rest of what the kernel offers stays unused.
constexpr std::uint64_t kKnown = kIndirectDescriptors | kEventIndex | kVersion1 | std::uint64_t{kNetMergeableBuffers};

/// The guest's RAM, for the kernel to translate addresses by (struct vhost_memory ends in an array).
std::vector<std::uint64_t> memory_table(const GuestMemory& memory) {
  static_assert(sizeof(vhost_memory) == sizeof(std::uint64_t));
  static_assert(sizeof(vhost_memory_region) % sizeof(std::uint64_t) == 0);
  const auto regions = memory.regions();
  std::vector<std::uint64_t> table((sizeof(vhost_memory) + regions.size() * sizeof(vhost_memory_region)) /
                                   sizeof(std::uint64_t));
  table[0] = regions.size();  // nregions, and 32 bits of padding
  auto* to = reinterpret_cast<std::byte*>(table.data()) + sizeof(vhost_memory);
  for (const auto& region : regions) {
    const vhost_memory_region entry{.guest_phys_addr = raw(region.range.start),
                                    .memory_size = region.range.size,
                                    .userspace_addr = reinterpret_cast<std::uint64_t>(region.bytes.data()),
                                    .flags_padding = 0};
    std::memcpy(to, &entry, sizeof entry);
    to += sizeof entry;
  }
  return table;
}

}  // namespace

std::optional<VhostNet> VhostNet::open(const GuestMemory& memory) {
  Fd fd{::open("/dev/vhost-net", O_RDWR | O_CLOEXEC)};
  if (!fd) {
    return std::nullopt;
  }
  return VhostNet{std::move(fd), memory};
}

VhostNet::VhostNet(Fd fd, const GuestMemory& memory) : fd_{std::move(fd)}, memory_{&memory} {
  check(::ioctl(fd_.get(), VHOST_SET_OWNER), "/dev/vhost-net: VHOST_SET_OWNER");
  check(::ioctl(fd_.get(), VHOST_GET_FEATURES, &features_), "/dev/vhost-net: VHOST_GET_FEATURES");
  features_ &= kKnown;
  auto table = memory_table(memory);
  check(::ioctl(fd_.get(), VHOST_SET_MEM_TABLE, table.data()), "/dev/vhost-net: VHOST_SET_MEM_TABLE");
}

bool VhostNet::start(Ring ring, const QueueSetup& setup, const Wiring& wiring) noexcept {
  stop(ring);
  const auto index = static_cast<unsigned>(ring);
  // One set of features for both rings: it is there before the first of them runs.
  const std::uint64_t wanted = setup.features & kKnown;
  if ((wanted & ~features_) != 0 || (setup.features & kRingPacked) != 0) {
    return false;
  }
  if (wanted != accepted_ && (running_[0] || running_[1] || ::ioctl(fd_.get(), VHOST_SET_FEATURES, &wanted) != 0)) {
    return false;
  }
  accepted_ = wanted;
  const auto descriptors = memory_->slice(setup.descriptors, sizeof(SplitDescriptor) * setup.size);
  const auto driver = memory_->slice(setup.driver, 6 + 2ULL * setup.size);                 // §2.7.6
  const auto device = memory_->slice(setup.device, 6 + sizeof(UsedElement) * setup.size);  // §2.7.8
  if (!descriptors || !driver || !device) {
    return false;
  }
  const auto user = [](std::span<std::byte> bytes) { return reinterpret_cast<std::uint64_t>(bytes.data()); };
  const vhost_vring_state size{.index = index, .num = setup.size};
  const vhost_vring_state base{.index = index, .num = 0};
  const vhost_vring_addr addresses{.index = index,
                                   .flags = 0,
                                   .desc_user_addr = user(*descriptors),
                                   .used_user_addr = user(*device),
                                   .avail_user_addr = user(*driver),
                                   .log_guest_addr = 0};
  const vhost_vring_file kick{.index = index, .fd = wiring.kick};
  const vhost_vring_file call{.index = index, .fd = wiring.call};
  const vhost_vring_file failed{.index = index, .fd = wiring.failed};
  const vhost_vring_file backend{.index = index, .fd = wiring.backend};
  running_[index] =
      ::ioctl(fd_.get(), VHOST_SET_VRING_NUM, &size) == 0 && ::ioctl(fd_.get(), VHOST_SET_VRING_BASE, &base) == 0 &&
      ::ioctl(fd_.get(), VHOST_SET_VRING_ADDR, &addresses) == 0 &&
      ::ioctl(fd_.get(), VHOST_SET_VRING_CALL, &call) == 0 && ::ioctl(fd_.get(), VHOST_SET_VRING_ERR, &failed) == 0 &&
      ::ioctl(fd_.get(), VHOST_SET_VRING_KICK, &kick) == 0 && ::ioctl(fd_.get(), VHOST_NET_SET_BACKEND, &backend) == 0;
  return running_[index];
}

void VhostNet::stop(Ring ring) noexcept {
  const auto index = static_cast<unsigned>(ring);
  if (std::exchange(running_[index], false)) {
    const vhost_vring_file none{.index = index, .fd = VHOST_FILE_UNBIND};
    ::ioctl(fd_.get(), VHOST_NET_SET_BACKEND, &none);  // waits for what is in flight
    ::ioctl(fd_.get(), VHOST_SET_VRING_KICK, &none);
    ::ioctl(fd_.get(), VHOST_SET_VRING_CALL, &none);
    ::ioctl(fd_.get(), VHOST_SET_VRING_ERR, &none);
  }
}

}  // namespace martlet::virtio
