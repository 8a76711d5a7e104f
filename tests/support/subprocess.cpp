#include "tests/support/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "vmm/base/error.h"

namespace martlet::test {
namespace {

constexpr int kOnePage = 4096;

struct Pipe {
  Fd reader;
  Fd writer;
};
Pipe make_pipe() {
  std::array<int, 2> fds{};
  check(::pipe2(fds.data(), O_CLOEXEC), "pipe2");
  return {Fd{fds[0]}, Fd{fds[1]}};
}

void make_non_blocking(int fd) { check(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), "fcntl"); }

/// All there is to read now; false at the end of it.
bool read_all(int fd, std::string& into) {
  std::array<char, 65536> chunk{};
  while (true) {
    const auto got = ::read(fd, chunk.data(), chunk.size());
    if (got > 0) {
      into.append(chunk.data(), static_cast<std::size_t>(got));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      return false;
    } else if (errno == EAGAIN) {
      return true;
    }
  }
}

/// What is left of the child's start, between fork and exec: nothing here may allocate.
[[noreturn]] void become(const Subprocess::Config& config, char* const* arguments, char* const* environment,
                         std::array<int, 3> streams, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) {
    ::_exit(127);
  }
  if (config.terminal != nullptr) {
    ::setsid();
    ::ioctl(streams[0] >= 0 ? streams[0] : streams[1], TIOCSCTTY, 0);
  }
  for (int fd = 0; fd < 3; ++fd) {
    const int stream = streams[static_cast<std::size_t>(fd)];
    if (stream >= 0) {
      ::dup2(stream, fd);
    } else {
      ::close(fd);
    }
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (!config.directory.empty() && ::chdir(config.directory.c_str()) != 0) {
    ::_exit(127);
  }
  ::execvpe(arguments[0], arguments, environment);
  static constexpr std::string_view kComplaint = "cannot execute: ";
  static_cast<void>(!::write(2, kComplaint.data(), kComplaint.size()));
  static_cast<void>(!::write(2, arguments[0], std::strlen(arguments[0])));
  ::_exit(127);
}

}  // namespace

std::ostream& operator<<(std::ostream& stream, const Outcome& outcome) {
  constexpr std::size_t kEnough = 4000;
  const auto end_of = [](const std::string& text) {
    return text.size() <= kEnough ? text : "[…]" + text.substr(text.size() - kEnough);
  };
  if (outcome.deadline_passed) {
    stream << "still running at its deadline";
  } else if (outcome.signal != 0) {
    stream << "killed by signal " << outcome.signal;
  } else {
    stream << "exit code " << outcome.exit_code;
  }
  return stream << "\n--- its output\n"
                << end_of(outcome.out) << "\n--- its errors\n"
                << end_of(outcome.err) << "\n---\n";
}

Terminal::Terminal() : user_{check(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), "posix_openpt")} {
  check(::grantpt(user_.get()), "grantpt");
  check(::unlockpt(user_.get()), "unlockpt");
  std::array<char, 64> name{};
  if (::ptsname_r(user_.get(), name.data(), name.size()) != 0) {
    throw std::runtime_error{"ptsname_r"};
  }
  path_ = name.data();
  program_ = open_file(path_, O_RDWR | O_NOCTTY);
  make_non_blocking(user_.get());
}

termios Terminal::settings() const {
  termios settings{};
  check(::tcgetattr(program_.get(), &settings), "tcgetattr");
  return settings;
}

bool same_settings(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag &&
         std::ranges::equal(a.c_cc, b.c_cc);
}

Subprocess::Subprocess(Config config) : config_{std::move(config)} {
  std::array<Fd, 3> streams;
  switch (config_.input) {
    case Input::Null:
      streams[0] = open_file("/dev/null", O_RDONLY);
      break;
    case Input::Closed:
      break;
    case Input::Pipe: {
      auto pipe = make_pipe();
      streams[0] = std::move(pipe.reader);
      in_ = std::move(pipe.writer);
      make_non_blocking(in_.get());
      break;
    }
    case Input::Terminal:
      streams[0] = open_file(config_.terminal->path(), O_RDWR | O_NOCTTY);
      in_ = duplicate(config_.terminal->user());
      break;
  }
  switch (config_.output) {
    case Output::Pipe:
    case Output::Unread: {
      auto pipe = make_pipe();
      streams[1] = std::move(pipe.writer);
      make_non_blocking(pipe.reader.get());
      if (config_.output == Output::Unread) {
        check(::fcntl(pipe.reader.get(), F_SETPIPE_SZ, kOnePage), "F_SETPIPE_SZ");
        unread_ = std::move(pipe.reader);
      } else {
        out_ = std::move(pipe.reader);
      }
      break;
    }
    case Output::Null:
      streams[1] = open_file("/dev/null", O_WRONLY);
      break;
    case Output::Closed:
      break;
    case Output::Terminal:
      streams[1] = open_file(config_.terminal->path(), O_RDWR | O_NOCTTY);
      out_ = duplicate(config_.terminal->user());
      break;
    case Output::File:
      streams[1] = open_file(config_.output_file, O_WRONLY);
      break;
  }
  auto errors = make_pipe();
  streams[2] = std::move(errors.writer);
  err_ = std::move(errors.reader);
  make_non_blocking(err_.get());

  const auto terminated = [](std::vector<std::string>& words) {
    std::vector<char*> pointers(words.size() + 1, nullptr);
    std::ranges::transform(words, pointers.begin(), [](std::string& word) { return word.data(); });
    return pointers;
  };
  std::vector<std::string> variables;  // ours come first, so that they win
  std::ranges::transform(config_.environment, std::back_inserter(variables), [](const auto& variable) {
    return std::string{variable.first}.append("=").append(variable.second);
  });
  for (char** variable = environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  const auto arguments = terminated(config_.command);
  const auto environment = terminated(variables);
  const pid_t parent = ::getpid();
  end_ = std::chrono::steady_clock::now() + config_.deadline;
  pid_ = ::fork();
  if (pid_ == 0) {
    become(config_, arguments.data(), environment.data(), {streams[0].get(), streams[1].get(), streams[2].get()},
           parent);
  }
  check(pid_, "fork");
  pidfd_ = Fd{check(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)), "pidfd_open")};
}

Subprocess::~Subprocess() {
  if (!ended_) {
    ::kill(pid_, SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }
}

void Subprocess::send_signal(int signal) const {
  if (!ended_) {
    check(::kill(pid_, signal), "kill");
  }
}

/// Waits for something to happen, for 20 ms at most, and deals with it.
void Subprocess::pump() {
  constexpr int kMilliseconds = 20;
  if (to_type_.empty() && input_ends_) {
    in_ = {};
  }
  std::array<pollfd, 4> polled{{{.fd = pidfd_.get(), .events = POLLIN, .revents = 0},
                                {.fd = out_.get(), .events = POLLIN, .revents = 0},
                                {.fd = err_.get(), .events = POLLIN, .revents = 0},
                                {.fd = to_type_.empty() ? -1 : in_.get(), .events = POLLOUT, .revents = 0}}};
  ::poll(polled.data(), polled.size(), kMilliseconds);
  if (polled[3].revents != 0) {
    // Whoever does not read any more must not end us.
    const auto before = ::signal(SIGPIPE, SIG_IGN);
    const auto taken = ::write(in_.get(), to_type_.data(), to_type_.size());
    ::signal(SIGPIPE, before);
    if (taken >= 0) {
      to_type_.erase(0, static_cast<std::size_t>(taken));
    } else if (errno != EAGAIN) {
      to_type_.clear();
      in_ = {};
    }
  }
  if (out_ && polled[1].revents != 0 && !read_all(out_.get(), outcome_.out)) {
    out_ = {};
  }
  if (err_ && polled[2].revents != 0 && !read_all(err_.get(), outcome_.err)) {
    err_ = {};
  }
  if (polled[0].revents == 0 && std::chrono::steady_clock::now() >= end_) {
    outcome_.deadline_passed = true;
    ::kill(pid_, SIGKILL);
    polled[0].revents = POLLIN;
  }
  if (polled[0].revents != 0) {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
    outcome_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    outcome_.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    for (auto& [fd, text] : {std::pair{&out_, &outcome_.out}, {&err_, &outcome_.err}, {&unread_, &outcome_.out}}) {
      if (*fd) {
        static_cast<void>(read_all(fd->get(), *text));
      }
    }
  }
}

bool Subprocess::find(const std::string& in, std::string_view text, std::size_t& from) {
  const auto found = in.find(text, from);
  if (found == std::string::npos) {
    return false;
  }
  from = found + text.size();
  return true;
}

bool Subprocess::wait_until(const std::function<bool()>& done) {
  while (!done()) {
    if (ended_) {
      return false;
    }
    pump();
  }
  return true;
}

bool Subprocess::wait_for(std::string_view text) {
  return wait_until([&] { return find(outcome_.out, text, seen_out_); });
}

bool Subprocess::wait_for_error(std::string_view text) {
  return wait_until([&] { return find(outcome_.err, text, seen_err_); });
}

Outcome Subprocess::wait() {
  while (!ended_) {
    pump();
  }
  return outcome_;
}

Outcome run(Subprocess::Config config) { return Subprocess{std::move(config)}.wait(); }

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "martlet-test.XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw std::system_error{errno, std::generic_category(), pattern};
  }
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TempDir::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator{path_}) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

std::string read_file(const std::string& path) {
  std::ifstream stream{path, std::ios::binary};
  if (!stream) {
    throw std::runtime_error{"cannot open " + path};
  }
  return {std::istreambuf_iterator<char>{stream}, {}};
}

}  // namespace martlet::test
