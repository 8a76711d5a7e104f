#include "devices/virtio/sector_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kWordBits = 64;

std::uint64_t word_at(std::span<const std::byte> bytes, std::uint64_t index) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + index * sizeof(word), sizeof(word));
  return word;
}

void set_word(std::span<std::byte> bytes, std::uint64_t index, std::uint64_t word) {
  std::memcpy(bytes.data() + index * sizeof(word), &word, sizeof(word));
}

/// Bits [from, from + count) of a word; count at least 1.
std::uint64_t mask(std::uint64_t from, std::uint64_t count) { return (~0ULL >> (kWordBits - count)) << from; }

}  // namespace

std::uint64_t SectorMap::bytes_for(std::uint64_t sectors) noexcept {
  constexpr std::uint64_t kSectorsPerPage = kPage * 8;
  return (sectors + kSectorsPerPage - 1) / kSectorsPerPage * kPage;
}

SectorMap::SectorMap(std::uint64_t sectors) : changed_(bytes_for(sectors) / kPage) {
  const auto size = bytes_for(sectors);
  void* const memory =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    fail_errno(errno, "overlay: no memory for the map of its sectors");
  }
  bytes_ = {static_cast<std::byte*>(memory), size};
}

SectorMap::~SectorMap() { ::munmap(bytes_.data(), bytes_.size()); }

SectorMap::Run SectorMap::run_at(std::uint64_t sector, std::uint64_t limit) const noexcept {
  Run run;
  if (limit == 0) {
    return run;
  }
  const bool written = (word_at(bytes_, sector / kWordBits) >> (sector % kWordBits) & 1U) != 0;
  run.kind = written ? Run::Kind::Written : Run::Kind::Untouched;
  while (run.sectors < limit) {
    const auto at = sector + run.sectors;
    const auto word = word_at(bytes_, at / kWordBits);
    const auto rest = (written ? ~word : word) >> (at % kWordBits);  // 1: the other kind
    const auto same =
        std::min<std::uint64_t>(static_cast<std::uint64_t>(std::countr_zero(rest)), kWordBits - at % kWordBits);
    run.sectors += same;
    if (rest != 0) {
      break;
    }
  }
  run.sectors = std::min(run.sectors, limit);
  return run;
}

void SectorMap::set(std::uint64_t sector, std::uint64_t count) noexcept {
  while (count != 0) {
    const auto index = sector / kWordBits;
    const auto part = std::min(count, kWordBits - sector % kWordBits);
    const auto before = word_at(bytes_, index);
    const auto after = before | mask(sector % kWordBits, part);
    if (after != before) {
      set_word(bytes_, index, after);
      changed_[index * sizeof(std::uint64_t) / kPage] = true;
      any_changed_ = true;
    }
    sector += part;
    count -= part;
  }
}

std::vector<SectorMap::Pages> SectorMap::take_changed() {
  std::vector<Pages> taken;
  if (!any_changed_) {
    return taken;
  }
  any_changed_ = false;
  for (std::size_t page = 0; page < changed_.size(); ++page) {
    if (!changed_[page]) {
      continue;
    }
    changed_[page] = false;
    const auto offset = page * kPage;
    if (taken.empty() || taken.back().offset + taken.back().bytes.size() != offset) {
      taken.push_back({.offset = offset});
    }
    const auto bytes = bytes_.subspan(offset, kPage);
    taken.back().bytes.insert(taken.back().bytes.end(), bytes.begin(), bytes.end());
  }
  return taken;
}

void SectorMap::put_back(std::span<const Pages> pages) noexcept {
  for (const auto& run : pages) {
    any_changed_ = true;
    for (std::size_t at = 0; at < run.bytes.size(); at += kPage) {
      changed_[(run.offset + at) / kPage] = true;
    }
  }
}

}  // namespace martlet::virtio
