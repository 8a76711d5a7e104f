#include "boot/cpio_header.h"

#include <fmt/format.h>

#include <cstring>

#include "boot/placement.h"

namespace martlet {

std::uint64_t CpioHeader::size_with(std::string_view name) noexcept {
  constexpr std::uint64_t kFixed = 110;  // magic, then thirteen fields of eight hexadecimal digits
  return align_up(kFixed + name.size() + 1, kAlignment);
}

std::span<std::byte> CpioHeader::write(std::span<std::byte> into) const {
  const auto text =
      fmt::format("070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{}", inode, mode,
                  uid, gid, links, mtime, size, 0 /* device */, 0, device_major, device_minor, name.size() + 1,
                  0 /* checksum, of another format */, name);
  std::memcpy(into.data(), text.c_str(), text.size() + 1);
  return into.subspan(size_with(name));
}

}  // namespace martlet
