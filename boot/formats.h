#pragma once
// The two kernel formats, for load_kernel() only.

#include <cstddef>
#include <span>
#include <string_view>

#include "boot/file.h"
#include "boot/kernel.h"

namespace martlet {

/// From the beginning of the file to the end of a bzImage's setup header; an ELF header is shorter.
inline constexpr std::size_t kProbeSize = offsetof(boot_params, hdr) + sizeof(setup_header);

/// The first bytes of a file, zeros beyond its end.
using Probe = std::span<const std::byte, kProbeSize>;

[[nodiscard]] bool is_bzimage(Probe start) noexcept;
[[nodiscard]] LoadedKernel load_bzimage(const GuestMemory& memory, const RegularFile& file, Probe start);

[[nodiscard]] bool is_elf(Probe start) noexcept;
[[nodiscard]] LoadedKernel load_elf(const GuestMemory& memory, const RegularFile& file, Probe start);

/// Throws HostError "PATH COMPLAINT".
[[noreturn]] void refuse(const RegularFile& file, std::string_view complaint);

/// Throws HostError unless all of `footprint` is RAM below 4 GiB, which is what the boot CPU can reach at entry.
void require_low_ram(const GuestMemory& memory, const RegularFile& file, const GuestRange& footprint);

}  // namespace martlet
