#pragma once
// The qcow2 image format: QEMU's docs/interop/qcow2.txt, whose sections the names in quotes below are.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "devices/virtio/disk_options.h"

namespace martlet::virtio {

inline constexpr std::size_t kQcow2HeaderBytes = 112;  // all fields that are known here

/// All numbers of the format are big-endian.
template <class T>
[[nodiscard]] T load_big(std::span<const std::byte> bytes, std::size_t at) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value << 8U | std::to_integer<T>(bytes[at + i]));
  }
  return value;
}
template <class T>
void store_big(std::span<std::byte> bytes, std::size_t at, T value) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    bytes[at + i] = static_cast<std::byte>(value >> 8U * (sizeof(T) - 1 - i));
  }
}

/// "Header", read and checked: what its fields promise holds from here on.
struct Qcow2Header {
  /// Where fields are that are written, too.
  enum Field : std::size_t {
    kRefcountTableOffset = 48,
    kRefcountTableClusters = 56,
    kAutoclearFeatures = 88,
  };
  enum class Compression : std::uint8_t { Zlib = 0, Zstd = 1 };

  std::uint32_t version = 0;
  std::uint32_t cluster_bits = 0;
  std::uint64_t size = 0;  ///< of the disk, bytes
  std::uint32_t l1_entries = 0;
  std::uint64_t l1_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t snapshots = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t autoclear = 0;
  std::uint32_t refcount_order = 4;
  Compression compression = Compression::Zlib;
  std::string backing{};         ///< the file that it names as its backing file; empty: none
  std::string backing_format{};  ///< and that one's format, if it says so

  [[nodiscard]] std::uint64_t cluster() const noexcept { return 1ULL << cluster_bits; }
  /// Clusters of the disk that one L2 table tells of.
  [[nodiscard]] std::uint64_t l2_entries() const noexcept { return cluster() / sizeof(std::uint64_t); }
  /// Clusters of the file that one refcount block tells of.
  [[nodiscard]] std::uint64_t block_entries() const noexcept { return (cluster() * 8) >> refcount_order; }

  /// `start` is the image's beginning, a cluster of the largest size if there is as much. Throws HostError: one
  /// line that names `path`, the field, its value and what was expected.
  [[nodiscard]] static Qcow2Header parse(std::span<const std::byte> start, std::uint64_t file_size, DiskAccess access,
                                         const std::string& path);
};

inline constexpr std::uint32_t kMaxClusterBits = 21;

/// Entries of L1 and L2 tables: "Cluster mapping".
enum Qcow2Entry : std::uint64_t {
  kEntryCopied = 1ULL << 63U,      ///< refcount 1: may be written to where it is
  kEntryCompressed = 1ULL << 62U,  ///< L2 only
  kEntryZero = 1,                  ///< L2 only, version 3
  kEntryOffset = 0x00ff'ffff'ffff'fe00,
  kL1Reserved = 0x7f00'0000'0000'01ff,
  kL2Reserved = 0x3f00'0000'0000'01fe,  ///< of standard clusters
};

}  // namespace martlet::virtio
