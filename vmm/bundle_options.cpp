#include "vmm/bundle_options.h"

#include <fmt/format.h>

#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet {
namespace {

using Core = BundleOptions::Core;

}  // namespace

BundleOptions parse_bundle(std::string_view text, std::string_view what) {
  Options options{text, what};
  BundleOptions bundle{.directory = options.take_first("path").value_or("")};
  bundle.core = options.take_choice<Core>("vmcore", {{"raw", Core::Raw}, {"zstd", Core::Zstd}, {"none", Core::None}})
                    .value_or(Core::Raw);
  options.finish();
  if (bundle.directory.empty()) {
    throw HostError{fmt::format("{} {}: which directory? Write DIR[,vmcore=raw|zstd|none]", what, text)};
  }
  return bundle;
}

std::string format_bundle(const BundleOptions& options) {
  std::string path;
  for (const char c : options.directory) {
    path += c == ',' ? ",," : std::string{c};
  }
  const auto* const core = options.core == Core::Zstd ? "zstd" : options.core == Core::None ? "none" : "raw";
  return fmt::format("path={},vmcore={}", path, core);
}

}  // namespace martlet
