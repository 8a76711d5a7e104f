#pragma once
// Zeroes to write from.

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace martlet {

/// 128 KiB of them, page-aligned as O_DIRECT wants it. Takes no room in the program's file, nor memory until it is
/// read.
[[nodiscard]] std::span<const std::byte> zeroes() noexcept;

/// As many of them as there are, `bytes` at the most, for writev(), which only reads: iovec has no word for that.
[[nodiscard]] iovec zeroes_to_write(std::uint64_t bytes) noexcept;

}  // namespace martlet
