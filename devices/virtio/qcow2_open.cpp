#include "devices/virtio/qcow2_open.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <utility>

#include "devices/virtio/disk_qcow2.h"
#include "devices/virtio/image_file.h"
#include "vmm/base/error.h"

namespace martlet::virtio {
namespace {

/// As a value on the command line: a comma in there is written twice.
std::string quoted(const std::string& value) {
  std::string text;
  for (const char c : value) {
    text += c == ',' ? std::string{",,"} : std::string{c};
  }
  return text;
}

std::unique_ptr<Qcow2Image> open_image(EventLoop& loop, const DiskOptions& options) {
  DiskFile file{
      {.path = options.path, .access = options.access, .cache = options.cache, .grain = DiskFile::Grain::Any}};
  return std::make_unique<Qcow2Image>(make_image_file(loop, std::move(file), options.cache), options.access);
}

/// An image that names a backing file can make whoever opens it read any file: only what the command line names is
/// opened.
void check_backing(const Qcow2Header& header, const DiskOptions& options) {
  if (header.backing.empty() && !options.backing.empty()) {
    throw HostError{
        fmt::format("disk {}: backing={} is named, but the image has no backing file; leave it out, or make "
                    "one that has with: qemu-img create -f qcow2 -F raw -b {} {}",
                    options.path, options.backing, options.backing, options.path)};
  }
  if (!header.backing.empty() && options.backing.empty()) {
    const auto named = std::filesystem::path{options.path}.parent_path() / header.backing;
    throw HostError{
        fmt::format("disk {}: its header names the backing file {}, and nothing is opened that only an image "
                    "asks for; if that is right, write: --disk "
                    "path={},format=qcow2,backing={},backing_format={}",
                    options.path, header.backing, quoted(options.path), quoted(named.string()),
                    header.backing_format == "qcow2" ? "qcow2" : "raw")};
  }
}

}  // namespace

void check_looks_raw(const DiskFile& file, DiskFormat format, std::string_view key) {
  constexpr std::string_view kMagic{"QFI\xfb"};
  std::array<char, kMagic.size()> start{};
  if (format == DiskFormat::Unsaid &&
      ::pread(file.buffered(), start.data(), start.size(), 0) == ssize_t{start.size()} &&
      std::string_view{start.data(), start.size()} == kMagic) {
    throw HostError{
        fmt::format("disk {}: looks like qcow2, and no format is guessed; add {}=qcow2 if it is one ({}=raw "
                    "if these bytes are meant)",
                    file.path(), key, key)};
  }
}

std::unique_ptr<Disk> open_qcow2(EventLoop& loop, const DiskOptions& options) {
  if (!options.overlay.empty()) {
    throw HostError{fmt::format("disk {}: overlay= is for raw images", options.path)};
  }
  auto top = open_image(loop, options);
  check_backing(top->header(), options);
  std::unique_ptr<Qcow2Image> below;
  std::unique_ptr<ImageFile> raw_below;
  if (!options.backing.empty()) {
    const DiskOptions backing{.path = options.backing,
                              .access = DiskAccess::ReadOnly,
                              .format = options.backing_format,
                              .cache = options.cache};
    if (backing.format == DiskFormat::Qcow2) {
      below = open_image(loop, backing);
      if (!below->header().backing.empty()) {
        throw HostError{
            fmt::format("disk {}: its backing file {} has a backing file itself ({}); only one is followed: "
                        "make it stand alone with: qemu-img rebase -b '' {}",
                        options.path, backing.path, below->header().backing, backing.path)};
      }
    } else {
      DiskFile file{
          {.path = backing.path, .access = backing.access, .cache = backing.cache, .grain = DiskFile::Grain::Any}};
      check_looks_raw(file, backing.format, "backing_format");
      file.check_sectors();
      raw_below = make_image_file(loop, std::move(file), backing.cache);
    }
  }
  if (options.block_size != 0 && top->header().size % options.block_size != 0) {
    throw HostError{fmt::format("disk {}: {} bytes are no whole number of {}-byte blocks; use block_size=512",
                                options.path, top->header().size, options.block_size)};
  }
  return std::make_unique<Qcow2Disk>(
      std::make_unique<Qcow2Stack>(std::move(top), std::move(below), std::move(raw_below)), options.access,
      options.cache);
}

}  // namespace martlet::virtio
