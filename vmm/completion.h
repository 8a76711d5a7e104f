#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace martlet {

/// All spellings of all options of `app`.
[[nodiscard]] std::vector<std::string> option_names(const CLI::App& app);
/// All commands within `app`.
[[nodiscard]] std::vector<std::string> command_names(const CLI::App& app);
/// What leads to `app`: "martlet net create".
[[nodiscard]] std::string words_of(const CLI::App& app);

/// A script for bash that completes commands and options.
[[nodiscard]] std::string bash_completion(const CLI::App& top);

}  // namespace martlet
