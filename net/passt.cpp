#include "net/passt.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr int kTheirSocket = STDERR_FILENO + 1;
constexpr std::size_t kMostWords = 65536;
constexpr auto kPatience = std::chrono::seconds{10};

[[noreturn]] void refuse(std::string_view why) { throw HostError{fmt::format("-n user: {}", why)}; }

std::vector<std::string> command_line(const PasstOptions& options) {
  std::vector<std::string> words{
      "passt", "--quiet", "--fd", std::to_string(kTheirSocket), "--mtu", std::to_string(options.mtu)};
  for (const auto& forward : options.forwards) {
    words.emplace_back(forward.protocol == HostForward::Protocol::Tcp ? "--tcp-ports" : "--udp-ports");
    words.push_back(
        fmt::format("{}{}{}:{}", forward.address, forward.address.empty() ? "" : "/", forward.host, forward.guest));
  }
  return words;
}

/// What a new program shall be given; the calls can fail for lack of memory only.
class SpawnSettings {
 public:
  /// Standard streams to nowhere, but stderr; `socket` as kTheirSocket; signals as a shell would have them.
  SpawnSettings(const Fd& socket, const Fd& error) {
    ::posix_spawn_file_actions_init(&files_);
    ::posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&files_, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_adddup2(&files_, error.get(), STDERR_FILENO);
    ::posix_spawn_file_actions_adddup2(&files_, socket.get(), kTheirSocket);
    ::posix_spawn_file_actions_addclosefrom_np(&files_, kTheirSocket + 1);
    sigset_t none;
    ::sigemptyset(&none);
    sigset_t ignored = none;
    ::sigaddset(&ignored, SIGPIPE);
    ::sigaddset(&ignored, SIGXFSZ);
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &ignored);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&files_);
    ::posix_spawnattr_destroy(&attributes_);
  }

  /// 0 or errno.
  [[nodiscard]] int spawn(std::vector<std::string> words, pid_t& child) const {
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (auto& word : words) {
      arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    return ::posix_spawnp(&child, arguments.front(), &files_, &attributes_, arguments.data(), environ);
  }

 private:
  posix_spawn_file_actions_t files_{};
  posix_spawnattr_t attributes_{};
};

/// All that comes until `pipe` is closed at its other end; false when that takes too long.
bool read_words(const Fd& pipe, std::string& words) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wanted{.fd = pipe.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) {
      continue;
    }
    if (ready <= 0) {
      return false;
    }
    std::array<char, 4096> part{};
    const auto got = ::read(pipe.get(), part.data(), part.size());
    if (got <= 0) {
      return true;
    }
    words.append(part.data(), std::min(static_cast<std::size_t>(got), kMostWords - std::min(kMostWords, words.size())));
  }
}

/// The last of passt's words that is not about itself.
std::string complaint(std::string_view words) {
  std::string last = "it says no word about why";
  while (!words.empty()) {
    const auto line = words.substr(0, words.find('\n'));
    words.remove_prefix(std::min(words.size(), line.size() + 1));
    if (!line.empty() && !line.starts_with("Failed to send") && !line.starts_with("Don't run as root")) {
      last = line;
    }
  }
  return last;
}

}  // namespace

Fd start_passt(const PasstOptions& options) {
  for (const auto& forward : options.forwards) {  // passt itself does not mind
    if (const int error = try_to_bind(forward); error != 0) {
      refuse(fmt::format("hostfwd={}: {}", to_string(forward), std::generic_category().message(error)));
    }
  }
  std::array<int, 2> ends{};
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  Fd ours{ends[0]};
  Fd theirs{ends[1]};
  check(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
  const Fd words_end{ends[0]};
  Fd error{ends[1]};
  pid_t child = 0;
  if (const int failed = SpawnSettings{theirs, error}.spawn(command_line(options), child); failed == ENOENT) {
    refuse("there is no passt in PATH; install it: apt-get install passt");
  } else if (failed != 0) {
    fail_errno(failed, "-n user: cannot start passt");
  }
  theirs = Fd{};
  error = Fd{};
  // What we started ends when passt is ready, in the background.
  std::string words;
  const bool in_time = read_words(words_end, words);
  if (!in_time) {
    ::kill(child, SIGKILL);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    refuse(fmt::format("passt is not ready after {} s", kPatience.count()));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    refuse(fmt::format("passt does not start: {}", complaint(words)));
  }
  for (const auto& forward : options.forwards) {
    if (try_to_bind(forward) == 0) {
      refuse(
          fmt::format("hostfwd={}: passt does not listen there; ports below 1024 want net.ipv4."
                      "ip_unprivileged_port_start",
                      to_string(forward)));
    }
  }
  return ours;
}

}  // namespace martlet
