#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace martlet {

/// All spellings of all options of `app`.
[[nodiscard]] std::vector<std::string> option_names(const CLI::App& app);

/// A script for bash that completes commands and options.
[[nodiscard]] std::string bash_completion(const CLI::App& top);

}  // namespace martlet
