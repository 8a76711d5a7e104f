#include "vmm/base/touched_pages.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "vmm/base/fd.h"

namespace martlet {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kEntriesAtOnce = 8192;  // 32 MiB of RAM

// A page's entry in /proc/self/pagemap (Linux, Documentation/admin-guide/mm/pagemap.rst).
constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62U;
constexpr std::uint64_t kPresent = std::uint64_t{1} << 63U;

using Visit = std::function<bool(const GuestRange&)>;

/// True unless `visit` wants no more.
bool visit_file(int file, const GuestMemory::Region& region, const Visit& visit) {
  const std::uint64_t end = region.file_offset + region.range.size;
  for (std::uint64_t at = region.file_offset; at < end;) {
    const off_t data = ::lseek(file, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      return true;  // nothing but a hole up to the file's end
    }
    const off_t hole = data < 0 ? -1 : ::lseek(file, data, SEEK_HOLE);
    if (hole < 0) {
      return visit({region.range.start + (at - region.file_offset), end - at});
    }
    const std::uint64_t from = std::clamp(static_cast<std::uint64_t>(data), at, end);
    const std::uint64_t to = std::clamp(static_cast<std::uint64_t>(hole), from, end);
    if (from < to && !visit({region.range.start + (from - region.file_offset), to - from})) {
      return false;
    }
    at = std::max(to, at + kPage);
  }
  return true;
}

bool visit_anonymous(int pagemap, const GuestMemory::Region& region, const Visit& visit) {
  const std::uint64_t first = reinterpret_cast<std::uintptr_t>(region.bytes.data()) / kPage;
  const std::uint64_t pages = region.range.size / kPage;
  std::vector<std::uint64_t> entries(std::min<std::uint64_t>(kEntriesAtOnce, pages));
  std::uint64_t run = 0;  // the pages just before `page` that were touched and not yet visited
  for (std::uint64_t page = 0; page < pages;) {
    const auto count = std::min<std::uint64_t>(entries.size(), pages - page);
    const auto got = ::pread(pagemap, entries.data(), count * sizeof(std::uint64_t),
                             static_cast<off_t>((first + page) * sizeof(std::uint64_t)));
    if (got < static_cast<ssize_t>(sizeof(std::uint64_t))) {
      return visit({region.range.start + (page - run) * kPage, (pages - page + run) * kPage});
    }
    const auto read = static_cast<std::uint64_t>(got) / sizeof(std::uint64_t);
    for (std::uint64_t i = 0; i < read; ++i, ++page) {
      if ((entries[i] & (kPresent | kSwapped)) != 0) {
        ++run;
      } else if (run != 0) {
        if (!visit({region.range.start + (page - run) * kPage, run * kPage})) {
          return false;
        }
        run = 0;
      }
    }
  }
  return run == 0 || visit({region.range.start + (pages - run) * kPage, run * kPage});
}

}  // namespace

void visit_touched(const GuestMemory& memory, const Visit& visit) {
  const Fd pagemap{memory.file() < 0 ? ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1};
  for (const auto& region : memory.regions()) {
    const bool more =
        memory.file() >= 0 ? visit_file(memory.file(), region, visit) : visit_anonymous(pagemap.get(), region, visit);
    if (!more) {
      return;
    }
  }
}

}  // namespace martlet
