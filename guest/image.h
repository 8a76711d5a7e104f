#pragma once

#include <cstddef>
#include <span>

namespace martlet {

/// The program that --exec makes the guest's first: an ELF file, static, x86-64, a few KiB.
[[nodiscard]] std::span<const std::byte> guest_init() noexcept;

}  // namespace martlet
