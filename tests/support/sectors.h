#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

namespace martlet::test {

inline constexpr std::size_t kSector = 512;

/// A disk image as the virtio_blk guest wants it: each sector begins with its number.
inline void write_disk(const std::string& path, std::uint64_t sectors) {
  std::ofstream file{path, std::ios::binary};
  for (std::uint64_t number = 0; number < sectors; ++number) {
    std::string sector(kSector, '\x5a');
    std::memcpy(sector.data(), &number, sizeof number);
    file << sector;
  }
}

/// What the guest writes as pattern `seed`, from its first byte on.
inline std::string pattern(std::uint64_t seed, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t at = 0; at + sizeof seed <= bytes; at += sizeof seed) {
    const std::uint64_t value = (seed + at / sizeof seed + 1) * 0x9e3779b97f4a7c15;
    std::memcpy(text.data() + at, &value, sizeof value);
  }
  return text;
}

/// Bytes of all values, but no end of transmission.
inline std::string typed(std::size_t bytes) {
  auto text = pattern(7, bytes);
  for (auto& byte : text) {
    byte = byte == '\4' ? 'x' : byte;
  }
  return text;
}

/// How the disk looks after the guest: sectors 1 to 8 and those from 16 on that it filled all at once.
inline bool holds_what_was_written(const std::string& disk) {
  bool well = disk.substr(kSector, 8 * kSector) == pattern(1, 8 * kSector);
  for (std::size_t i = 0; i < 8; ++i) {
    well = well && disk.substr((16 + i) * kSector, kSector) == pattern(1000 + i, kSector);
  }
  return well;
}

}  // namespace martlet::test
