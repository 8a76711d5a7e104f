#include "tests/kvm/martlet.h"

#include <filesystem>

namespace martlet::test {

std::string guest_file(std::string_view name) { return std::string{GUEST_DIR "/"}.append(name).append(".elf"); }

std::vector<std::string> martlet_command(const Guest& guest) {
  std::vector<std::string> command{MARTLET_PROGRAM, "run", guest_file(guest.name), "-a", guest.append};
  command.insert(command.end(), guest.options.begin(), guest.options.end());
  return command;
}

Ended run_martlet(const Guest& guest) {
  const TempDir directory;
  const auto result = directory.file("result.json");
  auto command = martlet_command(guest);
  command.insert(command.end(), {"--result", result});
  Ended finished{run({.command = std::move(command)}), {}};
  if (std::filesystem::exists(result)) {
    finished.verdict = nlohmann::json::parse(read_file(result), nullptr, false);
  }
  return finished;
}

std::string flood(std::size_t bytes) {
  constexpr std::size_t kBlock = 4096;
  constexpr std::size_t kLine = 16;
  const auto number = [](std::size_t value) {
    std::string digits(8, '0');
    for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit, value /= 16) {
      *digit = "0123456789abcdef"[value % 16];
    }
    return digits;
  };
  std::string text;
  for (std::size_t block = 0; block < bytes / kBlock; ++block) {
    for (std::size_t line = 0; line < kBlock / kLine; ++line) {
      text += number(line == 0 ? block : line) + std::string(7, static_cast<char>('a' + line % 26)) + '\n';
    }
  }
  return text;
}

}  // namespace martlet::test
