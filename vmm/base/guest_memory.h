#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/base/guest_addr.h"

namespace martlet {

/// Guest RAM mapped into this process. The regions are fixed at construction; every access is
/// checked for bounds and overflow; no raw pointer leaves, only spans.
///
/// The guest may write any byte at any time, so nothing read here may be trusted twice: copy out
/// with read(), check the copy, use the copy.
class GuestMemory {
 public:
  enum class Backing {
    Anonymous,  ///< private, 2 MiB-aligned, transparent huge pages: the fastest default
    Memfd,      ///< shareable with another process (vhost-user)
    HugeTlb,    ///< 2 MiB pages reserved by the administrator
  };
  struct Region {
    GuestRange range;
    std::span<std::byte> bytes;
    std::uint64_t file_offset = 0;  ///< where in file() the region begins; 0 when anonymous
  };

  /// Maps `ranges` (page-aligned, ascending, disjoint). Throws HostError when the host has not got it.
  explicit GuestMemory(std::span<const GuestRange> ranges, Backing backing = Backing::Anonymous);
  GuestMemory(GuestMemory&&) noexcept = default;
  GuestMemory& operator=(GuestMemory&&) noexcept = delete;
  ~GuestMemory();

  [[nodiscard]] std::span<const Region> regions() const noexcept { return regions_; }
  [[nodiscard]] std::uint64_t size() const noexcept;
  /// The memfd that backs all regions, -1 when anonymous.
  [[nodiscard]] int file() const noexcept { return file_.get(); }

  /// The `length` bytes at `addr`; nothing unless all of them lie inside one region.
  [[nodiscard]] std::optional<std::span<std::byte>> slice(GuestAddr addr, std::uint64_t length) const noexcept;

  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] std::optional<T> read(GuestAddr addr) const noexcept {
    const auto from = slice(addr, sizeof(T));
    if (!from) {
      return std::nullopt;
    }
    T value{};
    std::memcpy(&value, from->data(), sizeof(T));
    return value;
  }

  /// False when not all of `bytes` fits at `addr`; nothing is written then.
  [[nodiscard]] bool write(GuestAddr addr, std::span<const std::byte> bytes) const noexcept;

  template <class T>
    requires(std::is_trivially_copyable_v<T> && !std::is_convertible_v<T, std::span<const std::byte>>)
  [[nodiscard]] bool write(GuestAddr addr, const T& value) const noexcept {
    return write(addr, std::as_bytes(std::span{&value, 1}));
  }

 private:
  Fd file_;
  std::vector<Region> regions_;
};

}  // namespace martlet
