#include "devices/virtio/overlay_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "devices/virtio/block_wire.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kHeaderBytes = 4096;
constexpr std::uint64_t kDataAlignment = 1U << 20U;
constexpr std::uint64_t kMaxBase = 1ULL << 44U;  // 16 TiB: 4 GiB of map

constexpr std::array<char, 8> kMagic{'M', 'A', 'R', 'T', 'O', 'V', 'L', '1'};

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t base_size = 0;
  std::uint64_t map_offset = kHeaderBytes;
  std::uint64_t data_offset = 0;
};

std::uint64_t data_offset_for(std::uint64_t base_size) {
  const auto end = kHeaderBytes + SectorMap::bytes_for(base_size / kSector);
  return (end + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
}

DiskFile open_overlay(const std::string& where, DiskCache cache) {
  if (where == "tmp") {
    const char* const folder = std::getenv("TMPDIR");
    std::string path = fmt::format("{}/martlet-overlay-XXXXXX", folder != nullptr ? folder : "/var/tmp");
    Fd fd{check(::mkostemp(path.data(), O_CLOEXEC),
                fmt::format("overlay: cannot make {} (TMPDIR chooses another folder)", path))};
    ::unlink(path.c_str());
    return DiskFile{std::move(fd), path};
  }
  return DiskFile{{.path = where, .cache = cache, .grain = DiskFile::Grain::Any}};
}

}  // namespace

FreshFile::FreshFile(std::string path) : path_{std::move(path)} {
  if (path_.empty()) {
    return;
  }
  constexpr mode_t kMode = S_IRUSR | S_IWUSR;
  if (const Fd made{::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kMode)}) {
    before_ = Before::Missing;
  } else {
    static_cast<void>(open_file(path_, O_RDWR | O_CREAT, kMode));
  }
}

FreshFile::~FreshFile() {
  if (before_ == Before::Missing) {
    ::unlink(path_.c_str());
  } else if (before_ == Before::Empty) {
    static_cast<void>(::truncate(path_.c_str(), 0));
  }
}

OverlayFile::OverlayFile(const std::string& where, std::uint64_t base_size, DiskCache cache)
    : temporary_{where == "tmp"},
      data_offset_{data_offset_for(base_size)},
      fresh_{temporary_ ? "" : where},
      file_{open_overlay(where, cache)},
      map_{base_size / kSector} {
  if (file_.is_device()) {
    throw HostError{fmt::format("overlay {}: is a block device; name a file, or overlay=tmp", where)};
  }
  if (base_size > kMaxBase) {
    throw HostError{fmt::format("overlay {}: its base has more than 16 TiB, the most an overlay can tell of", where)};
  }
  if (file_.shape().size == 0) {
    if (!temporary_) {
      fresh_.fill();
    }
    make(base_size);
  } else {
    load(base_size);
  }
}

std::uint64_t OverlayFile::map_offset() const noexcept { return kHeaderBytes; }

void OverlayFile::make(std::uint64_t base_size) {
  const int fd = file_.buffered();
  const auto what = fmt::format("overlay {}: cannot be made", file_.path());
  check(::ftruncate(fd, static_cast<off_t>(data_offset_ + base_size)), what);
  if (temporary_) {
    return;  // its map is never saved
  }
  // So that what was acknowledged can be told of later, on however full a disk.
  if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(kHeaderBytes + map_.bytes().size())) != 0 &&
      errno != EOPNOTSUPP) {
    fail_errno(errno, what);
  }
  std::array<std::byte, kHeaderBytes> block{};
  const Header header{.base_size = base_size, .data_offset = data_offset_};
  std::memcpy(block.data(), &header, sizeof(header));
  check(static_cast<int>(::pwrite(fd, block.data(), block.size(), 0)), what);
  check(::fdatasync(fd), what);
}

void OverlayFile::load(std::uint64_t base_size) {
  const auto& path = file_.path();
  const int fd = file_.buffered();
  Header header{};
  header.magic = {};
  if (file_.shape().size < data_offset_ + base_size || file_.shape().size < kHeaderBytes) {
    // Too short for this base: its header tells whether it belongs to another one or is no overlay at all.
    static_cast<void>(::pread(fd, &header, sizeof(header), 0));
  } else {
    read_exactly(fd, std::as_writable_bytes(std::span{&header, 1}), 0, path);
  }
  if (header.magic != kMagic) {
    throw HostError{fmt::format("overlay {}: is no overlay of Martlet's; name a new file, or remove this one", path)};
  }
  if (header.base_size != base_size) {
    throw HostError{fmt::format("overlay {}: belongs to an image of {} bytes, but this one has {}; name a new overlay",
                                path, header.base_size, base_size)};
  }
  if (header.map_offset != kHeaderBytes || header.data_offset != data_offset_ ||
      file_.shape().size < data_offset_ + base_size) {
    throw HostError{fmt::format("overlay {}: is damaged; remove it and begin anew", path)};
  }
  // Chunk by chunk, leaving out zeroes: memory is taken for what is set only.
  std::vector<std::byte> chunk(std::min<std::size_t>(map_.bytes().size(), 1U << 20U));
  for (std::uint64_t at = 0; at < map_.bytes().size(); at += chunk.size()) {
    const auto part = std::span{chunk}.first(std::min<std::size_t>(chunk.size(), map_.bytes().size() - at));
    read_exactly(fd, part, kHeaderBytes + at, path);
    if (std::ranges::any_of(part, [](std::byte byte) { return byte != std::byte{0}; })) {
      std::ranges::copy(part, map_.bytes().subspan(at).begin());
    }
  }
}

}  // namespace martlet::virtio
