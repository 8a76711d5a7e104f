#include "net/dnsmasq.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>
#include <vector>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

constexpr int kPatience = 2000;  // ms that it gets to end by itself

std::string name_of_process(const std::string& name) { return "martlet-dnsmasq-" + name; }

/// Empty when it is not installed. Users' PATH often lacks the sbin directories.
std::string find_program() {
  const char* const path = ::getenv("PATH");  // NOLINT: one thread
  std::istringstream folders{std::string{path == nullptr ? "" : path} + ":/usr/sbin:/usr/local/sbin"};
  for (std::string folder; std::getline(folders, folder, ':');) {
    auto file = folder + "/dnsmasq";
    if (!folder.empty() && ::access(file.c_str(), X_OK) == 0) {
      return file;
    }
  }
  return {};
}

std::vector<std::string> arguments(const SwitchOptions& options) {
  std::vector<std::string> words{name_of_process(options.name),
                                 "--conf-file=/dev/null",
                                 "--pid-file=",
                                 "--leasefile-ro",
                                 "--no-hosts",
                                 "--bind-dynamic",
                                 "--except-interface=lo",
                                 "--interface=" + options.name,
                                 "--dhcp-authoritative"};
  for (const auto& address : options.addresses) {
    const auto network = address.network();
    if (address.family == AF_INET) {
      auto first = network;
      first.bytes[3] |= 1U;
      auto last = address.last();
      last.bytes[3] &= 0xfeU;
      words.push_back(fmt::format("--dhcp-range={},{},12h", text_of_ip(first.address()), text_of_ip(last.address())));
    } else {
      words.emplace_back("--enable-ra");
      words.push_back(fmt::format("--ra-param={},0,0", options.name));  // no default router: nothing is forwarded
      words.push_back(fmt::format("--dhcp-range={},ra-stateless,{}", text_of_ip(network.address()), address.prefix));
    }
  }
  return words;
}

std::string file_text(const std::string& path) {
  const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::array<char, 4096> text{};
  const auto got = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
}

/// The identity of a network namespace; 0 when it cannot be told.
ino_t namespace_of(const std::string& process) {
  struct stat status {};
  return ::stat(fmt::format("/proc/{}/ns/net", process).c_str(), &status) == 0 ? status.st_ino : 0;
}

bool is_ours(const std::string& pid, const std::string& name) {
  const auto words = file_text(fmt::format("/proc/{}/cmdline", pid));
  return words.starts_with(name_of_process(name)) && words[name_of_process(name).size()] == '\0' &&
         namespace_of(pid) == namespace_of("self");
}

std::vector<std::string> processes_of(const std::string& name) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator process{"/proc", error}, end; process != end; process.increment(error)) {
    const auto pid = process->path().filename().string();
    if (pid.find_first_not_of("0123456789") == std::string::npos && is_ours(pid, name)) {
      found.push_back(pid);
    }
  }
  return found;
}

void end_process(const std::string& pid, const std::string& name) {
  pid_t number = 0;
  std::from_chars(pid.data(), pid.data() + pid.size(), number);
  const Fd process{static_cast<int>(::syscall(SYS_pidfd_open, number, 0))};
  if (!process || !is_ours(pid, name)) {  // it ended, and another may have got its number
    return;
  }
  for (const int signal : {SIGTERM, SIGKILL}) {
    ::syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0);
    pollfd end{.fd = process.get(), .events = POLLIN, .revents = 0};
    if (::poll(&end, 1, kPatience) == 1) {
      return;
    }
  }
}

}  // namespace

void refuse_without_dnsmasq(const std::string& name) {
  if (find_program().empty()) {
    throw HostError{fmt::format("switch {}: --dhcp needs dnsmasq; install it: apt install dnsmasq-base", name)};
  }
}

void start_dnsmasq(const SwitchOptions& options) {
  const auto program = find_program();
  auto words = arguments(options);
  std::vector<char*> argv;
  std::ranges::transform(words, std::back_inserter(argv), [](std::string& word) { return word.data(); });
  argv.push_back(nullptr);
  std::array<int, 2> pipe{};
  check(::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK), "pipe2");
  const Fd complaints{pipe[0]};
  Fd its_end{pipe[1]};
  const pid_t us = ::getpid();
  const pid_t child = check(::fork(), "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // until it has become a daemon, which has the name to be found by
    if (::getppid() != us) {
      ::_exit(127);  // we were killed before that
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);  // what is held back here is no business of its
    ::dup2(its_end.get(), STDERR_FILENO);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  its_end = Fd{};
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) {
    std::array<char, 512> text{};
    const auto got = ::read(complaints.get(), text.data(), text.size());
    std::string words_of_its_own{text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
    std::erase(words_of_its_own, '\n');
    throw HostError{fmt::format("switch {}: dnsmasq does not start: {}", options.name, words_of_its_own)};
  }
}

bool dnsmasq_runs(const std::string& name) { return !processes_of(name).empty(); }

void stop_dnsmasq(const std::string& name) {
  for (const auto& pid : processes_of(name)) {
    end_process(pid, name);
  }
}

}  // namespace martlet
