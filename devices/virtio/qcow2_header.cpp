#include "devices/virtio/qcow2_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "devices/virtio/block_wire.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
constexpr std::uint32_t kVersion2Length = 72;
constexpr std::uint32_t kVersion3Length = 104;
constexpr std::uint32_t kMinClusterBits = 9;
// As QEMU limits them: what an image may make its readers keep in memory.
constexpr std::uint64_t kMaxL1Bytes = 32U << 20U;
constexpr std::uint64_t kMaxRefcountTableBytes = 8U << 20U;
constexpr std::uint32_t kMaxSnapshots = 65536;
constexpr std::uint32_t kMaxName = 1023;
constexpr std::uint32_t kBackingFormat = 0xe2792aca;

enum Incompatible : std::uint64_t {
  kDirty = 1U << 0U,
  kCorrupt = 1U << 1U,
  kExternalData = 1U << 2U,
  kCompressionType = 1U << 3U,
  kExtendedL2 = 1U << 4U,
};

class Parser {
 public:
  Parser(std::span<const std::byte> start, std::uint64_t file_size, DiskAccess access, const std::string& path)
      : start_{start}, file_size_{file_size}, access_{access}, path_{path} {}

  Qcow2Header parse() {
    if (start_.size() < kVersion2Length) {
      refuse("{} bytes are no qcow2 image: its header alone has {}; make one with: qemu-img create -f qcow2 {} 8G",
             start_.size(), kVersion2Length, path_);
    }
    if (field<std::uint32_t>(0) != kMagic) {
      refuse("magic {:#010x} is not qcow2's, {:#010x}; format=raw if it is a raw image", field<std::uint32_t>(0),
             kMagic);
    }
    read_geometry();
    read_features();
    read_tables();
    read_backing();
    return header_;
  }

 private:
  template <class T>
  [[nodiscard]] T field(std::size_t at) const {
    return load_big<T>(start_, at);
  }
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) const {
    throw HostError{fmt::format("disk {}: {}", path_, fmt::format(text, std::forward<Args>(args)...))};
  }

  void read_geometry() {
    header_.version = field<std::uint32_t>(4);
    if (header_.version != 2 && header_.version != 3) {
      refuse("qcow2 version {}; only 2 and 3 are known", header_.version);
    }
    header_.cluster_bits = field<std::uint32_t>(20);
    if (header_.cluster_bits < kMinClusterBits || header_.cluster_bits > kMaxClusterBits) {
      refuse("cluster_bits {} in its header; expected {} to {} (512 bytes to 2 MiB)", header_.cluster_bits,
             kMinClusterBits, kMaxClusterBits);
    }
    header_.size = field<std::uint64_t>(24);
    if (header_.size == 0 || header_.size % kSector != 0) {
      refuse("virtual size {} in its header; expected whole 512-byte sectors, at least one (qemu-img resize)",
             header_.size);
    }
    if (const auto method = field<std::uint32_t>(32); method != 0) {
      refuse("is encrypted (crypt_method {}), which is not supported; decrypt it with: qemu-img convert", method);
    }
    length_ = kVersion2Length;
    if (header_.version == 3) {
      length_ = start_.size() < kVersion3Length ? 0 : field<std::uint32_t>(100);
      if (length_ < kVersion3Length || length_ % 8 != 0 || length_ > header_.cluster() || length_ > start_.size()) {
        refuse("header_length {} in its header; expected {} to a cluster's {}, a multiple of 8", length_,
               kVersion3Length, header_.cluster());
      }
      header_.refcount_order = field<std::uint32_t>(96);
      if (header_.refcount_order > 6) {
        refuse("refcount_order {} in its header; expected 0 to 6", header_.refcount_order);
      }
    }
  }

  void read_features() {
    if (header_.version == 2) {
      return;
    }
    header_.autoclear = field<std::uint64_t>(Qcow2Header::kAutoclearFeatures);
    const auto features = field<std::uint64_t>(72);
    if ((features & kCorrupt) != 0) {
      refuse("is marked as corrupt (incompatible_features bit 1); repair it with: qemu-img check -r all {}", path_);
    }
    if ((features & kExternalData) != 0) {
      refuse(
          "has its data in another file (incompatible_features bit 2), which is not supported; use qemu-img convert");
    }
    if ((features & kExtendedL2) != 0) {
      refuse("has extended L2 entries (incompatible_features bit 4), which are not supported; use qemu-img convert");
    }
    if (const auto unknown = features & ~std::uint64_t{kDirty | kCompressionType}; unknown != 0) {
      refuse("incompatible_features {:#x} in its header; only bits 0 and 3 are known here", unknown);
    }
    if ((features & kDirty) != 0 && access_ == DiskAccess::ReadWrite) {
      refuse(
          "is marked as dirty (incompatible_features bit 0), its refcounts may be wrong; first run: qemu-img "
          "check -r all {}",
          path_);
    }
    const auto type = length_ > kVersion3Length ? field<std::uint8_t>(kVersion3Length) : std::uint8_t{0};
    const bool announced = (features & kCompressionType) != 0;
    if (type > 1 || announced != (type != 0)) {
      refuse("compression_type {} in its header, {} by incompatible_features bit 3; expected 0 (zlib) or 1 (zstd)",
             type, announced ? "announced" : "not announced");
    }
    header_.compression = static_cast<Qcow2Header::Compression>(type);
  }

  /// A table of the file: aligned, with its first byte in there.
  std::uint64_t table(const char* name, std::size_t at, std::uint64_t bytes) const {
    const auto offset = field<std::uint64_t>(at);
    if (offset < header_.cluster() || offset % header_.cluster() != 0 || offset > file_size_ ||
        bytes > file_size_ - offset) {
      refuse(
          "{} {:#x} in its header, for {} bytes; expected a multiple of {} after the header, and inside the file's {} "
          "bytes",
          name, offset, bytes, header_.cluster(), file_size_);
    }
    return offset;
  }

  void read_tables() {
    const auto cluster = header_.cluster();
    header_.l1_entries = field<std::uint32_t>(36);
    const auto clusters = (header_.size - 1) / cluster + 1;
    const auto needed = (clusters - 1) / header_.l2_entries() + 1;
    const auto l1_bytes = std::uint64_t{header_.l1_entries} * sizeof(std::uint64_t);
    if (header_.l1_entries < needed || l1_bytes > kMaxL1Bytes) {
      refuse("l1_size {} in its header; for its virtual size {} expected {}, at most {}", header_.l1_entries,
             header_.size, needed, kMaxL1Bytes / sizeof(std::uint64_t));
    }
    header_.l1_offset = table("l1_table_offset", 40, l1_bytes);
    header_.refcount_table_clusters = field<std::uint32_t>(Qcow2Header::kRefcountTableClusters);
    const auto table_bytes = header_.refcount_table_clusters * cluster;
    if (table_bytes == 0 || table_bytes > kMaxRefcountTableBytes) {
      refuse("refcount_table_clusters {} in its header; expected 1 to {}", header_.refcount_table_clusters,
             kMaxRefcountTableBytes / cluster);
    }
    header_.refcount_table_offset = table("refcount_table_offset", Qcow2Header::kRefcountTableOffset, 1);
    header_.snapshots = field<std::uint32_t>(60);
    if (header_.snapshots > kMaxSnapshots) {
      refuse("nb_snapshots {} in its header; expected at most {}", header_.snapshots, kMaxSnapshots);
    }
    if (header_.snapshots != 0) {
      header_.snapshots_offset = table("snapshots_offset", 64, 1);
    }
    const auto overlap = [](std::uint64_t a, std::uint64_t a_bytes, std::uint64_t b, std::uint64_t b_bytes) {
      return a < b + b_bytes && b < a + a_bytes;
    };
    if (overlap(header_.l1_offset, l1_bytes, header_.refcount_table_offset, table_bytes)) {
      refuse("l1_table_offset {:#x} and refcount_table_offset {:#x} in its header overlap; expected tables apart",
             header_.l1_offset, header_.refcount_table_offset);
    }
  }

  void read_backing() {
    const auto offset = field<std::uint64_t>(8);
    if (offset == 0) {
      return;
    }
    const auto size = field<std::uint32_t>(16);
    const auto end = std::min<std::uint64_t>(header_.cluster(), start_.size());
    if (size == 0 || size > kMaxName || offset > end || size > end - offset) {
      refuse(
          "backing_file_offset {:#x} and backing_file_size {} in its header; expected 1 to {} bytes inside its first "
          "cluster",
          offset, size, kMaxName);
    }
    header_.backing = text(offset, size);
    // "Header extensions": only the backing file's format is of use here.
    for (std::uint64_t at = length_; end >= 8 && at <= end - 8;) {
      const auto type = field<std::uint32_t>(at);
      const auto length = field<std::uint32_t>(at + 4);
      if (type == 0 || length > end - 8 - at) {
        return;
      }
      if (type == kBackingFormat) {
        header_.backing_format = text(at + 8, std::min(length, 16U));
        return;
      }
      at += 8 + (std::uint64_t{length} + 7) / 8 * 8;
    }
  }

  /// Made fit for a line on a terminal.
  [[nodiscard]] std::string text(std::uint64_t at, std::uint32_t length) const {
    std::string words;
    for (const auto byte : start_.subspan(at, length)) {
      const auto c = std::to_integer<unsigned char>(byte);
      words += c < ' ' || c == 0x7f ? '?' : static_cast<char>(c);
    }
    return words;
  }

  std::span<const std::byte> start_;
  std::uint64_t file_size_;
  DiskAccess access_;
  const std::string& path_;
  std::uint32_t length_ = 0;  // of the header proper
  Qcow2Header header_;
};

}  // namespace

Qcow2Header Qcow2Header::parse(std::span<const std::byte> start, std::uint64_t file_size, DiskAccess access,
                               const std::string& path) {
  return Parser{start, file_size, access, path}.parse();
}

}  // namespace martlet::virtio
