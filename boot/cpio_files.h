#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace martlet {

/// A directory and files in it that Martlet itself puts into the guest's initramfs: an archive of its own. As the last
/// one, it wins over what others bring under the same names.
struct CpioFiles {
  struct File {
    std::string name;
    std::uint32_t permissions = 0;
    std::span<const std::byte> data;
  };
  std::string directory{};  ///< in the guest's root, no slash in front
  std::vector<File> files{};

  [[nodiscard]] std::uint64_t size() const;
  /// To `into`, size() zero bytes.
  void write(std::span<std::byte> into) const;
};

}  // namespace martlet
