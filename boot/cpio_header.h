#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace martlet {

/// What stands before each entry of a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst).
struct CpioHeader {
  static constexpr std::uint64_t kAlignment = 4;  ///< of names and of data
  static constexpr std::string_view kTrailer = "TRAILER!!!";

  std::string_view name;  ///< no slash in front
  std::uint32_t inode = 0;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t links = 1;
  std::uint32_t mtime = 0;
  std::uint64_t size = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;

  /// Bytes of a header with that name, a multiple of 4.
  [[nodiscard]] static std::uint64_t size_with(std::string_view name) noexcept;
  /// Writes it to the front of `into`, zero bytes that are enough, and returns what is behind it.
  [[nodiscard]] std::span<std::byte> write(std::span<std::byte> into) const;
};

}  // namespace martlet
