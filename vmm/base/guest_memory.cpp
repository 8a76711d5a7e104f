#include "vmm/base/guest_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::uint64_t kHugePage = 2U << 20U;

std::uint64_t total_size(std::span<const GuestRange> ranges) {
  std::uint64_t total = 0;
  for (const auto& range : ranges) {
    total += range.size;
  }
  return total;
}

Fd make_backing_file(GuestMemory::Backing backing, std::uint64_t size) {
  if (backing == GuestMemory::Backing::Anonymous) {
    return Fd{};
  }
  const bool huge = backing == GuestMemory::Backing::HugeTlb;
  Fd file{check(::memfd_create("guest-ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0U)),
                huge ? "memfd with 2 MiB huge pages" : "memfd for guest memory")};
  check(::ftruncate(file.get(), static_cast<off_t>(size)), "sizing the memfd for guest memory");
  return file;
}

/// Maps `size` bytes so that 2 MiB of host and guest addresses coincide: only then can KVM back a
/// guest's huge page with a huge page.
std::span<std::byte> map_aligned(std::uint64_t size, int file, std::uint64_t offset) {
  void* const reserved =
      ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) {
    fail_errno(errno, fmt::format("cannot reserve {} MiB of address space for guest memory", size >> 20U));
  }
  auto* const base = static_cast<std::byte*>(reserved);
  const std::uint64_t skip = (kHugePage - reinterpret_cast<std::uintptr_t>(base) % kHugePage) % kHugePage;
  if (skip != 0) {
    ::munmap(base, skip);
  }
  ::munmap(base + skip + size, kHugePage - skip);
  const int sharing = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* const mapped = ::mmap(base + skip, size, PROT_READ | PROT_WRITE, sharing | MAP_FIXED | MAP_NORESERVE, file,
                              static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) {
    const int error = errno;
    ::munmap(base + skip, size);
    fail_errno(error, fmt::format("cannot map {} MiB of guest memory", size >> 20U));
  }
  ::madvise(mapped, size, MADV_HUGEPAGE);  // a hint: without it the guest runs, only slower
  ::madvise(mapped, size, MADV_DONTDUMP);  // our own core dumps are not the place for the guest's memory
  return {static_cast<std::byte*>(mapped), size};
}

}  // namespace

GuestMemory::GuestMemory(std::span<const GuestRange> ranges, Backing backing)
    : file_{make_backing_file(backing, total_size(ranges))} {
  regions_.reserve(ranges.size());
  std::uint64_t offset = 0;
  try {
    for (const auto& range : ranges) {
      regions_.push_back({range, map_aligned(range.size, file_.get(), offset), offset});
      offset += file_ ? range.size : 0;
    }
    if (backing == Backing::HugeTlb && ::fallocate(file_.get(), 0, 0, static_cast<off_t>(offset)) != 0) {
      throw HostError{
          fmt::format("not enough 2 MiB huge pages for {} MiB of guest memory; reserve them: sysctl vm.nr_hugepages={}",
                      offset >> 20U, offset / kHugePage)};
    }
  } catch (...) {
    for (const auto& region : regions_) {
      ::munmap(region.bytes.data(), region.bytes.size());
    }
    throw;
  }
}

GuestMemory::~GuestMemory() {
  for (const auto& region : regions_) {
    ::munmap(region.bytes.data(), region.bytes.size());
  }
}

std::uint64_t GuestMemory::size() const noexcept {
  std::uint64_t total = 0;
  for (const auto& region : regions_) {
    total += region.range.size;
  }
  return total;
}

std::optional<std::span<std::byte>> GuestMemory::slice(GuestAddr addr, std::uint64_t length) const noexcept {
  for (const auto& region : regions_) {
    const std::uint64_t offset = raw(addr) - raw(region.range.start);
    if (offset < region.range.size) {  // an address below the region has wrapped to something huge
      if (length > region.range.size - offset) {
        return std::nullopt;
      }
      return region.bytes.subspan(offset, length);
    }
  }
  return std::nullopt;
}

bool GuestMemory::write(GuestAddr addr, std::span<const std::byte> bytes) const noexcept {
  const auto to = slice(addr, bytes.size());
  if (!to) {
    return false;
  }
  std::ranges::copy(bytes, to->begin());
  return true;
}

}  // namespace martlet
