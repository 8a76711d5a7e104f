#include "boot/cpio_files.h"

#include <sys/stat.h>

#include <algorithm>

#include "boot/cpio_header.h"
#include "boot/placement.h"

namespace martlet {

std::uint64_t CpioFiles::size() const {
  auto size = CpioHeader::size_with(directory) + CpioHeader::size_with(CpioHeader::kTrailer);
  for (const auto& file : files) {
    size += CpioHeader::size_with(directory + "/" + file.name) + align_up(file.data.size(), CpioHeader::kAlignment);
  }
  return size;
}

void CpioFiles::write(std::span<std::byte> into) const {
  std::uint32_t inode = 1;
  into = CpioHeader{.name = directory, .inode = inode, .mode = S_IFDIR | 0755, .links = 2}.write(into);
  for (const auto& file : files) {
    const auto name = directory + "/" + file.name;
    into =
        CpioHeader{.name = name, .inode = ++inode, .mode = S_IFREG | file.permissions, .size = file.data.size()}.write(
            into);
    std::ranges::copy(file.data, into.begin());
    into = into.subspan(align_up(file.data.size(), CpioHeader::kAlignment));
  }
  static_cast<void>(CpioHeader{.name = CpioHeader::kTrailer}.write(into));
}

}  // namespace martlet
