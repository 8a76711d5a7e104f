#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace martlet {

/// martlet net: what its sub-command was told to do.
struct NetCommand {
  std::function<int()> run{};  ///< Returns the exit code; throws HostError.
};

/// Adds the sub-commands of `martlet net`; the one that the command line names fills in `chosen`.
void add_net_commands(CLI::App& net, NetCommand& chosen);

}  // namespace martlet
