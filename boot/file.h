#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/fd.h"

namespace martlet {

/// A regular file open for reading, and how long it was when it was opened.
struct RegularFile {
  std::string path;
  Fd fd;
  std::uint64_t size = 0;
};

/// Throws HostError when `path` is missing, unreadable, empty or no regular file; `expected` says in
/// the message what it should have been, for example "an initrd".
[[nodiscard]] RegularFile open_regular(const std::string& path, std::string_view expected);

}  // namespace martlet
