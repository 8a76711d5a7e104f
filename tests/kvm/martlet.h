#pragma once
// A guest under Martlet, as its user starts it.

#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/subprocess.h"

namespace martlet::test {

struct Guest {
  std::string_view name;               ///< tests/guest/NAME.cpp
  std::string append{};                ///< its command line
  std::vector<std::string> options{};  ///< more of martlet run's options
};

/// The guest's ELF file.
[[nodiscard]] std::string guest_file(std::string_view name);

/// martlet run …
[[nodiscard]] std::vector<std::string> martlet_command(const Guest& guest);

/// What came of it, with the verdict of --result.
struct Ended : Outcome {
  nlohmann::json verdict;
};

/// Runs it to its end, its console on stdout and nothing to read.
Ended run_martlet(const Guest& guest);

/// What the flood guest prints.
[[nodiscard]] std::string flood(std::size_t bytes);

}  // namespace martlet::test
