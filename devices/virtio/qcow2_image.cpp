#include "devices/virtio/qcow2_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <optional>
#include <utility>

#include "devices/virtio/qcow2_inflate.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

// Tables that one step of a request may need at once: an L2 table, its predecessor, refcount blocks.
constexpr std::size_t kSpareTables = 6;
constexpr std::size_t kMaxLeft = 65536;
constexpr std::uint64_t kMaxSnapshotTable = 64U << 20U;

Qcow2Header read_header(ImageFile& file, DiskAccess access) {
  std::vector<std::byte> start(std::min<std::uint64_t>(file.size(), 1U << kMaxClusterBits));
  if (const int error = file.read(start, 0); error != 0) {
    fail_errno(error, fmt::format("disk {}: its header cannot be read", file.name()));
  }
  return Qcow2Header::parse(start, file.size(), access, file.name());
}

/// Does it, and waits for it.
int carry_out(Disk& disk, const DiskRequest::Work& work) {
  class Now final : public DiskRequest {
   public:
    void done(int error) noexcept override { result = error; }
    std::optional<int> result;
  } request;
  request.work = work;
  disk.submit(request);
  disk.commit();
  while (!request.result) {
    disk.wait();
  }
  return *request.result;
}

}  // namespace

Qcow2Image::Qcow2Image(std::unique_ptr<ImageFile> file, DiskAccess access)
    : file_{std::move(file)},
      header_{read_header(*file_, access)},
      tables_{*file_, header_.cluster()},
      refcounts_{*file_, header_, tables_, layout_},
      map_{*file_, header_, tables_, refcounts_, layout_} {
  find_layout(access);
  if (access == DiskAccess::ReadWrite) {
    refcounts_.load();
  }
  map_.load();
}

void Qcow2Image::find_layout(DiskAccess access) {
  const auto cluster = header_.cluster();
  const auto run = [&](std::uint64_t offset, std::uint64_t bytes) {
    return ClusterRun{offset / cluster, (bytes - 1) / cluster + 1};
  };
  layout_.add(run(0, cluster));
  layout_.add(run(header_.l1_offset, header_.l1_entries * sizeof(std::uint64_t)));
  layout_.add(run(header_.refcount_table_offset, header_.refcount_table_clusters * cluster));
  if (header_.snapshots == 0 || access == DiskAccess::ReadOnly) {
    return;
  }
  // "Snapshots": their table's size is only known by walking through it.
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < header_.snapshots; ++i) {
    std::array<std::byte, 40> entry{};
    const int error = file_->read(entry, header_.snapshots_offset + bytes);
    const auto size = entry.size() + load_big<std::uint16_t>(entry, 12) + load_big<std::uint16_t>(entry, 14) +
                      std::uint64_t{load_big<std::uint32_t>(entry, 36)};
    bytes += size;
    if (error != 0 || bytes > kMaxSnapshotTable || bytes > file_->size() - header_.snapshots_offset) {
      throw HostError{
          fmt::format("disk {}: entry {} of its snapshot table is not inside the file; expected {} of them; "
                      "repair it with: qemu-img check -r all {}",
                      file_->name(), i, header_.snapshots, file_->name())};
    }
    bytes = (bytes + 7) / 8 * 8;
  }
  layout_.add(run(header_.snapshots_offset, bytes));
}

void Qcow2Image::begin_writing() {
  const auto whole = (file_->size() - 1) / header_.cluster() * header_.cluster() + header_.cluster();
  if (whole != file_->size() &&
      file_->growth() == ImageFile::Growth::Zeroes) {  // so that each cluster is there as a whole
    if (const int error = file_->grow(whole); error != 0) {
      fail_errno(error, fmt::format("disk {}: cannot be grown to whole clusters", file_->name()));
    }
  }
  // "autoclear_features": what only holds while every writer knows it. None is known here.
  if (header_.autoclear == 0) {
    return;
  }
  std::array<std::byte, sizeof(header_.autoclear)> zeroes{};
  const iovec buffer{.iov_base = zeroes.data(), .iov_len = zeroes.size()};
  int error = carry_out(file_->disk(), {.kind = DiskRequest::Kind::Write,
                                        .offset = Qcow2Header::kAutoclearFeatures,
                                        .length = zeroes.size(),
                                        .buffers = {&buffer, 1}});
  if (error == 0) {
    error = carry_out(file_->disk(), {.kind = DiskRequest::Kind::Flush});
  }
  if (error != 0) {
    fail_errno(error, fmt::format("disk {}: its header cannot be written", file_->name()));
  }
}

Qcow2Image::Changes Qcow2Image::take() {
  Changes changes;
  auto table = refcounts_.take();
  changes.groups.push_back(tables_.take(TableCache::Kind::Refcounts));
  changes.groups.push_back(std::move(table.moved));
  changes.groups.push_back(std::move(table.linked));
  changes.groups.push_back(tables_.take(TableCache::Kind::L2));
  changes.groups.push_back(map_.take());
  changes.left = map_.take_left();
  std::ranges::move(refcounts_.take_left(), std::back_inserter(changes.left));
  return changes;
}

void Qcow2Image::saved(const Changes& changes) noexcept {
  tables_.saved(changes.groups[0]);
  tables_.saved(changes.groups[3]);
}

void Qcow2Image::put_back(Changes&& changes) noexcept {
  tables_.put_back(changes.groups[0]);
  refcounts_.put_back();
  tables_.put_back(changes.groups[3]);
  map_.put_back(changes.groups[4]);
  map_.leave(changes.left);
}

bool Qcow2Image::crowded() const noexcept { return tables_.held() > tables_.capacity() / 2 || map_.left() > kMaxLeft; }

bool Qcow2Image::full() const noexcept { return tables_.held() + kSpareTables > tables_.capacity(); }

std::span<const std::byte> Qcow2Image::unpacked(std::uint64_t entry) const noexcept {
  return entry == unpacked_entry_ ? std::span{unpacked_} : std::span<const std::byte>{};
}

int Qcow2Image::unpack(std::uint64_t entry, std::span<const std::byte> from) noexcept {
  unpacked_entry_ = 0;
  unpacked_.resize(header_.cluster());
  if (!inflate_cluster(header_.compression, from, unpacked_)) {
    return EIO;
  }
  unpacked_entry_ = entry;
  return 0;
}

}  // namespace martlet::virtio
