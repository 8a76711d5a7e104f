#include "boot/command_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {

GuestRange write_command_line(const GuestMemory& memory, std::string_view text, std::uint64_t limit) {
  const auto longest = std::min(limit, layout::kCommandLine.size - 1);
  if (text.size() > longest) {
    throw HostError{fmt::format("the kernel command line has {} characters, and this kernel takes {}: shorten -a by {}",
                                text.size(), longest, text.size() - longest)};
  }
  if (text.find('\0') != text.npos) {
    throw HostError{"the kernel command line holds a NUL, where the kernel would stop reading: remove it"};
  }
  const GuestRange range{layout::kCommandLine.start, text.size() + 1};
  auto bytes = memory.slice(range.start, range.size);
  if (!bytes) {
    throw HostError{"there is no RAM for the kernel command line: use -m 2M or more"};
  }
  *std::ranges::copy(std::as_bytes(std::span{text}), bytes->begin()).out = std::byte{0};
  return range;
}

}  // namespace martlet
