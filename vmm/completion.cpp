#include "vmm/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

namespace martlet {

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

std::string bash_completion(const CLI::App& top) {
  std::string script =
      "# bash completion for martlet: source <(martlet completion bash)\n_martlet() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} words\n  case ${COMP_WORDS[1]} in\n";
  std::string commands;
  for (const auto* command : top.get_subcommands([](const CLI::App*) { return true; })) {
    commands += " " + command->get_name();
    script += fmt::format("    {}) words='{}' ;;\n", command->get_name(), fmt::join(option_names(*command), " "));
  }
  script += fmt::format("    *) words='{} {}' ;;\n", commands.substr(1), fmt::join(option_names(top), " "));
  script +=
      "  esac\n  if [[ $COMP_CWORD -eq 1 || $cur == -* ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n  fi\n}\n"
      "complete -o default -F _martlet martlet\n";
  return script;
}

}  // namespace martlet
