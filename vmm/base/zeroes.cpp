#include "vmm/base/zeroes.h"

#include <algorithm>
#include <array>

namespace martlet {

std::span<const std::byte> zeroes() noexcept {
  // Not const, for what is const and zero takes as much of the file as it has bytes.
  alignas(4096) static std::array<std::byte, 128U << 10U> bytes{};
  return bytes;
}

iovec zeroes_to_write(std::uint64_t bytes) noexcept {
  return {.iov_base = const_cast<std::byte*>(zeroes().data()),
          .iov_len = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, zeroes().size()))};
}

}  // namespace martlet
