#pragma once

#include <string>
#include <string_view>

namespace martlet {

/// Where a bundle goes, and what of it: "[path=]DIR[,vmcore=raw|zstd|none]".
struct BundleOptions {
  enum class Core { Raw, Zstd, None };

  std::string directory{};
  Core core = Core::Raw;
};

/// `what`: the option as users know it. Throws HostError.
[[nodiscard]] BundleOptions parse_bundle(std::string_view text, std::string_view what);
/// As parse_bundle() takes it.
[[nodiscard]] std::string format_bundle(const BundleOptions& options);

}  // namespace martlet
