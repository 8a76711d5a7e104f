#include "vmm/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

namespace martlet {
namespace {

std::vector<const CLI::App*> subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

}  // namespace

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_snames()) {
      names.push_back("-" + name);
    }
    for (const auto& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* command : subcommands(app)) {
    names.push_back(command->get_name());
  }
  return names;
}

std::string words_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : words_of(*app.get_parent()) + " " + app.get_name();
}

std::string bash_completion(const CLI::App& top) {
  std::string script =
      "# bash completion for martlet: source <(martlet completion bash)\n_martlet() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} words first=1 command='' sub=''\n"
      "  ((COMP_CWORD < 2)) || command=${COMP_WORDS[1]}\n"
      "  ((COMP_CWORD < 3)) || sub=${COMP_WORDS[2]}\n"
      "  case $command/$sub in\n";
  for (const auto* command : subcommands(top)) {
    for (const auto* sub : subcommands(*command)) {
      script += fmt::format("    {}/{}) words='{}' ;;\n", command->get_name(), sub->get_name(),
                            fmt::join(option_names(*sub), " "));
    }
    const auto subs = command_names(*command);
    script += fmt::format("    {}/*) words='{} {}'{} ;;\n", command->get_name(), fmt::join(subs, " "),
                          fmt::join(option_names(*command), " "), subs.empty() ? "" : " first=2");
  }
  script +=
      fmt::format("    *) words='{} {}' ;;\n", fmt::join(command_names(top), " "), fmt::join(option_names(top), " "));
  script +=
      "  esac\n  if [[ $COMP_CWORD -eq $first || $cur == -* ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n  fi\n}\n"
      "complete -o default -F _martlet martlet\n";
  return script;
}

}  // namespace martlet
