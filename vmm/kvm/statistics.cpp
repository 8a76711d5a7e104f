#include "vmm/kvm/statistics.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <span>

#include "vmm/base/fd.h"
#include "vmm/kvm/uapi.h"

namespace martlet {
namespace {

template <class T>
bool read_at(int fd, std::uint64_t offset, std::span<T> into) {
  return ::pread(fd, into.data(), into.size_bytes(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(into.size_bytes());
}

}  // namespace

std::vector<KvmCounter> read_kvm_counters(int fd) {
  const Fd stats{::ioctl(fd, KVM_GET_STATS_FD, 0)};
  kvm_stats_header header{};
  if (!stats || !read_at(stats.get(), 0, std::span{&header, 1})) {
    return {};
  }
  const std::size_t descriptor_size = sizeof(kvm_stats_desc) + header.name_size;
  std::vector<KvmCounter> counters;
  for (std::uint32_t i = 0; i < header.num_desc; ++i) {
    std::vector<std::byte> block(descriptor_size + 1);  // one more, so that the name always ends
    if (!read_at(stats.get(), header.desc_offset + i * descriptor_size, std::span{block}.first(descriptor_size))) {
      break;
    }
    kvm_stats_desc descriptor{};
    std::memcpy(&descriptor, block.data(), sizeof descriptor);
    std::uint64_t value = 0;
    if (descriptor.size == 1 && read_at(stats.get(), header.data_offset + descriptor.offset, std::span{&value, 1})) {
      counters.push_back({.name = reinterpret_cast<const char*>(block.data() + sizeof descriptor), .value = value});
    }
  }
  return counters;
}

}  // namespace martlet
