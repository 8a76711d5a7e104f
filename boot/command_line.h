#pragma once

#include <cstdint>
#include <string_view>

#include "vmm/base/guest_memory.h"

namespace martlet {

/// Writes the kernel's command line, NUL-terminated, to layout::kCommandLine and returns where it is,
/// its NUL included. Throws HostError when it is longer than `limit` characters or holds a NUL.
GuestRange write_command_line(const GuestMemory& memory, std::string_view text, std::uint64_t limit);

}  // namespace martlet
