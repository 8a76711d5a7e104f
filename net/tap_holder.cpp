#include "net/tap_holder.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

namespace martlet {
namespace {

namespace fs = std::filesystem;

std::string target_of(const fs::path& link) {
  std::error_code gone;  // processes come and go, and some are others'
  return fs::read_symlink(link, gone).string();
}

/// The TAP's name in /proc/PID/fdinfo/N (drivers/net/tun.c): "iff:\tmlt0".
std::string tap_of(const fs::path& fdinfo) {
  constexpr std::string_view kWord = "iff:\t";
  std::ifstream lines{fdinfo};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kWord)) {
      return line.substr(kWord.size());
    }
  }
  return {};
}

}  // namespace

std::map<std::string, pid_t> tap_holders() {
  std::map<std::string, pid_t> holders;
  const auto ours = target_of("/proc/self/ns/net");
  std::error_code trouble;
  for (const auto& process : fs::directory_iterator{"/proc", trouble}) {
    const auto name = process.path().filename().string();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || *end != '\0' || target_of(process.path() / "ns/net") != ours) {
      continue;
    }
    for (fs::directory_iterator fd{process.path() / "fd", trouble}, last; !trouble && fd != last;
         fd.increment(trouble)) {
      if (target_of(fd->path()) == "/dev/net/tun") {
        holders.emplace(tap_of(process.path() / "fdinfo" / fd->path().filename()), pid);
      }
    }
  }
  return holders;
}

}  // namespace martlet
