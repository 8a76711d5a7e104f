#pragma once

#include <sys/types.h>
#include <termios.h>

#include <chrono>
#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/base/fd.h"

namespace martlet::test {

/// How a child process ended, and what it said.
struct Outcome {
  int exit_code = -1;            ///< -1 when a signal killed it
  int signal = 0;                ///< the signal that did
  bool deadline_passed = false;  ///< and so we killed it
  std::string out;
  std::string err;
};
std::ostream& operator<<(std::ostream& stream, const Outcome& outcome);

/// A pseudo-terminal with both ends open: what a user sits at.
class Terminal {
 public:
  Terminal();

  [[nodiscard]] int user() const noexcept { return user_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] termios settings() const;
  /// Neither echoes nor waits for whole lines.
  [[nodiscard]] bool is_raw() const { return (settings().c_lflag & (ICANON | ECHO | ISIG)) == 0; }

 private:
  Fd user_;
  Fd program_;  // held open: so that settings outlive every program
  std::string path_;
};
[[nodiscard]] bool same_settings(const termios& a, const termios& b);

/// A child process with pipes or a terminal, never waited for beyond its deadline, and killed at the
/// latest by the destructor or by our own death.
class Subprocess {
 public:
  enum class Input { Null, Closed, Pipe, Terminal };
  enum class Output {
    Pipe,
    Null,
    Closed,
    Terminal,
    Unread,  ///< a pipe of one page that nobody empties until the child is gone
    File,    ///< output_file, which exists
  };
  struct Config {
    std::vector<std::string> command;  ///< command[0] is looked for in $PATH
    Input input = Input::Null;
    Output output = Output::Pipe;
    std::string output_file{};
    Terminal* terminal = nullptr;  ///< for Input::Terminal and Output::Terminal; its controlling one
    std::string directory{};       ///< to start in; empty: ours
    std::vector<std::pair<std::string, std::string>> environment{};  ///< added to ours
    std::chrono::seconds deadline{120};                              ///< for the whole of its life
  };

  explicit Subprocess(Config config);
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;
  ~Subprocess();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] const std::string& out() const noexcept { return outcome_.out; }
  [[nodiscard]] const std::string& err() const noexcept { return outcome_.err; }

  /// For its standard input, as fast as it takes it.
  void type(std::string_view text) { to_type_ += text; }
  /// No more input, once all that was typed is taken.
  void end_input() { input_ends_ = true; }
  /// Nobody listens to its standard output any more.
  void hang_up() { out_ = {}; }
  void send_signal(int signal) const;

  /// Until `text` is in its output, beyond what an earlier wait_for() found; false when it ended before.
  bool wait_for(std::string_view text);
  bool wait_for_error(std::string_view text);
  /// Until `done` says so, asked again at least every 20 ms; false when it ended before.
  bool wait_until(const std::function<bool()>& done);
  /// Until it ends.
  Outcome wait();

 private:
  void pump();
  bool find(const std::string& in, std::string_view text, std::size_t& from);

  Config config_;
  pid_t pid_ = -1;
  Fd pidfd_;
  Fd in_;
  Fd out_;
  Fd err_;
  Fd unread_;
  std::string to_type_;
  bool input_ends_ = false;
  bool ended_ = false;
  std::size_t seen_out_ = 0;
  std::size_t seen_err_ = 0;
  std::chrono::steady_clock::time_point end_;
  Outcome outcome_;
};

/// Runs it to its end.
Outcome run(Subprocess::Config config);

/// A fresh directory that goes with all it holds.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::string file(std::string_view name) const { return path_ + "/" + std::string{name}; }
  /// Names of what is in it.
  [[nodiscard]] std::vector<std::string> entries() const;

 private:
  std::string path_;
};

[[nodiscard]] std::string read_file(const std::string& path);

}  // namespace martlet::test
