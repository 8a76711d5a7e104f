#include "boot/initrd.h"

#include <fmt/format.h>

#include <algorithm>

#include "boot/cpio.h"
#include "boot/file.h"
#include "boot/placement.h"
#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

// The kernel looks for the next archive at a multiple of 4 (buffer-format.rst).
constexpr std::uint64_t kPartAlignment = 4;
constexpr std::uint64_t kMemoryStep = 64 * layout::kMiB;  // what we advise is a round number

CpioTree scan_root(const InitrdRequest& request) {
  CpioTree tree{*request.root};
  if (!tree.has_init() && !request.custom_init && request.files.empty()) {
    throw HostError{
        fmt::format("{0} has no program /init, which the kernel runs first: add {0}/init and make it "
                    "executable, or name another one with -a rdinit=/PATH",
                    *request.root)};
  }
  return tree;
}

[[noreturn]] void refuse_too_large(const GuestMemory& memory, std::uint64_t size, std::uint64_t room, GuestAddr floor) {
  const auto in_mib = [](std::uint64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(layout::kMiB);
  };
  const auto complaint =
      fmt::format("the initrd needs {:.1f} MiB, and {:.1f} MiB are free above the kernel", in_mib(size), in_mib(room));
  const auto helps = align_up(raw(floor) + size + layout::kMiB, kMemoryStep);  // a MiB for tables at the top
  if (helps > raw(layout::kMmioHole.start) || helps <= memory.size()) {
    throw HostError{complaint + ", which more memory cannot change: use a smaller one"};
  }
  throw HostError{fmt::format("{}: use -m {}M or more", complaint, helps / layout::kMiB)};
}

}  // namespace

std::optional<GuestRange> load_initrd(const GuestMemory& memory, const InitrdRequest& request, GuestAddr floor,
                                      GuestAddr ceiling) {
  const auto room = largest_gap(memory, floor, ceiling).size;
  std::uint64_t size = 0;
  const auto add_part = [&](std::uint64_t part) {
    if (part > room || align_up(size, kPartAlignment) + part > room) {  // early, so that no sum can overflow
      refuse_too_large(memory, size + std::min(part, raw(layout::kAbove4G)), room, floor);
    }
    size = align_up(size, kPartAlignment) + part;
  };
  std::vector<RegularFile> files;
  for (const auto& path : request.files) {
    files.push_back(open_regular(path, "an initrd"));
    add_part(files.back().size);
  }
  std::optional<CpioTree> root;
  if (request.root) {
    root = scan_root(request);
    add_part(root->size());
  }
  if (request.own) {
    add_part(request.own->size());
  }
  if (size == 0) {
    return std::nullopt;
  }

  const GuestRange range{highest_place(memory, size, floor, ceiling).value(), size};
  auto rest = memory.slice(range.start, range.size).value();
  for (const auto& file : files) {
    read_exactly(file.fd.get(), rest.first(file.size), 0, file.path);
    rest = rest.subspan(std::min<std::size_t>(align_up(file.size, kPartAlignment), rest.size()));
  }
  if (root) {
    root->write(rest.first(root->size()));
    rest = rest.subspan(root->size());  // a multiple of 4
  }
  if (request.own) {
    request.own->write(rest);
  }
  return range;
}

}  // namespace martlet
