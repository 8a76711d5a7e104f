#include "vmm/config.h"

#include <string_view>

namespace martlet {

bool has_parameter(std::string_view line, std::string_view name) {
  for (auto at = line.find(name); at != std::string_view::npos; at = line.find(name, at + 1)) {
    if (at == 0 || line[at - 1] == ' ') {
      return true;
    }
  }
  return false;
}

std::string kernel_command_line(const Config& config) {
  std::string line;
  const auto add = [&line](std::string_view word) {
    line += line.empty() || word.empty() ? "" : " ";
    line += word;
  };
  if (!has_parameter(config.append, "console=")) {
    add("console=ttyS0");
  }
  if (!has_parameter(config.append, "panic=")) {
    add("panic=-1");  // reset at once: the VM ends, and its console says why
  }
  add(config.append);
  return line;
}

}  // namespace martlet
