#pragma once

#include <string>

namespace martlet {

struct HostReport {
  std::string text;     ///< a line for each thing looked at, with the fix for what is missing
  bool usable = false;  ///< Martlet can run some guest here
};

/// What this host can do for Martlet.
[[nodiscard]] HostReport check_host();

}  // namespace martlet
