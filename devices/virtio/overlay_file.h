#pragma once

#include <cstdint>
#include <string>

#include "devices/virtio/disk_file.h"
#include "devices/virtio/sector_map.h"

namespace martlet::virtio {

/// A file that is to be as it was before, missing or empty, unless something comes of it.
class FreshFile {
 public:
  /// Makes it if it is missing. Throws HostError.
  explicit FreshFile(std::string path);
  FreshFile(const FreshFile&) = delete;
  FreshFile& operator=(const FreshFile&) = delete;
  ~FreshFile();

  /// It was empty, is ours, and is written to now.
  void fill() noexcept { before_ = before_ == Before::Missing ? before_ : Before::Empty; }
  void keep() noexcept { before_ = Before::Kept; }

 private:
  std::string path_;
  enum class Before { Kept, Empty, Missing } before_ = Before::Kept;
};

/// What a disk's writes go to instead: a sparse file of one's own format, or a temporary one without a name.
///
///   0          header, 4 KiB: magic "MARTOVL1", then 64-bit numbers, little-endian: the base's size, where
///              the map begins, where the data begins, all in bytes; zeroes
///   4 KiB      the map: one bit for each 512-byte sector of the disk, low bit first; set: it is in here
///   data       the disk's bytes, each at its own place; begins at a multiple of 1 MiB
///
/// The map is saved after the data that it tells of is on the disk (see OverlayDisk), so that whatever ends
/// the host leaves each sector as it was at the last flush, or newer. Its room is taken when the file is made.
class OverlayFile {
 public:
  /// `where` is "tmp" or a path: made when it is missing or empty, else it must be an overlay for a base of
  /// `base_size` bytes. One that was made and never used() goes again. Throws HostError.
  OverlayFile(const std::string& where, std::uint64_t base_size, DiskCache cache);

  void used() noexcept { fresh_.keep(); }

  [[nodiscard]] const DiskFile& file() const noexcept { return file_; }
  [[nodiscard]] SectorMap& map() noexcept { return map_; }
  [[nodiscard]] bool temporary() const noexcept { return temporary_; }
  [[nodiscard]] std::uint64_t map_offset() const noexcept;
  [[nodiscard]] std::uint64_t data_offset() const noexcept { return data_offset_; }

 private:
  void make(std::uint64_t base_size);
  void load(std::uint64_t base_size);

  bool temporary_;
  std::uint64_t data_offset_;
  FreshFile fresh_;
  DiskFile file_;
  SectorMap map_;
};

}  // namespace martlet::virtio
