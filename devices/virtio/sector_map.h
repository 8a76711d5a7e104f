#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace martlet::virtio {

/// One bit for each 512-byte sector: was it written? Memory is taken as bits are set, not before. Remembers
/// which of its pages changed since they were last taken for saving.
class SectorMap {
 public:
  static constexpr std::size_t kPage = 4096;

  /// Throws HostError when there is no address space left.
  explicit SectorMap(std::uint64_t sectors);
  SectorMap(const SectorMap&) = delete;
  SectorMap& operator=(const SectorMap&) = delete;
  ~SectorMap();

  /// How many bytes `sectors` bits take, whole pages.
  [[nodiscard]] static std::uint64_t bytes_for(std::uint64_t sectors) noexcept;

  /// From `sector` on: so many sectors, `limit` at most, that were all written, or all not.
  struct Run {
    enum class Kind { Written, Untouched };
    Kind kind = Kind::Untouched;
    std::uint64_t sectors = 0;
  };
  [[nodiscard]] Run run_at(std::uint64_t sector, std::uint64_t limit) const noexcept;
  void set(std::uint64_t sector, std::uint64_t count) noexcept;

  /// All pages; loading writes here.
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return bytes_; }

  /// A copy of some pages in a row.
  struct Pages {
    std::uint64_t offset = 0;  ///< in bytes()
    std::vector<std::byte> bytes{};
  };
  /// What changed; none of it counts as changed afterwards.
  [[nodiscard]] std::vector<Pages> take_changed();
  /// Saving them failed.
  void put_back(std::span<const Pages> pages) noexcept;

 private:
  std::span<std::byte> bytes_;
  std::vector<bool> changed_;  // one for each page
  bool any_changed_ = false;
};

}  // namespace martlet::virtio
