// The first program of a guest that was started with --exec: prepares the system, runs the command between pipes and
// carries what goes through them from and to the host. The host ends the VM once it knows how the command ended.

#include <asm/signal.h>

#include "guest/drivers.h"
#include "guest/ports.h"
#include "guest/prepare.h"
#include "guest/relay.h"
#include "guest/system.h"
#include "guest/text.h"
#include "guest/trouble.h"

namespace guest {
namespace {

constexpr int kNotFound = 127;  // as shells have it
constexpr int kCannotRun = 126;
constexpr long kLastWordsMs = 1000;

constexpr std::size_t kLongestCommand = 128 << 10;  // MAX_ARG_STRLEN
char command[kLongestCommand];

constexpr std::size_t kMostWords = 1024;
char* environment[kMostWords];
char path_variable[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
char home_variable[] = "HOME=/root";
char term_variable[] = "TERM=dumb";

/// Ours, and what the kernel hands on: words of its command line that it does not know.
void make_environment(char** given) noexcept {
  std::size_t count = 0;
  environment[count++] = path_variable;
  environment[count++] = home_variable;
  environment[count++] = term_variable;
  for (; *given != nullptr && count + 1 < kMostWords; ++given) {
    const std::string_view variable{*given};
    if (!variable.starts_with("HOME=") && !variable.starts_with("TERM=")) {
      environment[count++] = *given;
    }
  }
}

void read_command() noexcept {
  const auto fd = open("/.martlet/command", O_RDONLY);
  std::size_t size = 0;
  for (long got = 0; size + 1 < kLongestCommand && (got = read(fd, command + size, kLongestCommand - 1 - size)) > 0;) {
    size += static_cast<std::size_t>(got);
  }
  close(fd);
}

// --- In the child

[[noreturn]] void cannot_run(std::string_view what, long error) noexcept {
  Line line;
  line << "martlet: cannot run " << what << ": ";
  if (error == -ENOENT) {
    line << (exists(what.data()) ? "its interpreter or loader is missing\n" : "not found in the guest's root\n");
  } else {
    line << (error == -EACCES ? "permission denied" : error == -ENOEXEC ? "not a program for this CPU" : "error ");
    (error == -EACCES || error == -ENOEXEC ? line : line << -error) << "\n";
  }
  write(2, line.c_str(), line.view().size());
  call(__NR_exit_group, error == -ENOENT ? kNotFound : kCannotRun);
  __builtin_unreachable();
}

/// A root without a shell: its programs can be run all the same.
[[noreturn]] void run_words() noexcept {
  if (needs_shell(command)) {
    Line line;
    line << "martlet: the guest's root has no /bin/sh, and the command needs one\n";
    write(2, line.c_str(), line.view().size());
    call(__NR_exit_group, kNotFound);
    __builtin_unreachable();
  }
  static char* words[kMostWords];
  if (split_words(command, words, kMostWords) == 0) {
    call(__NR_exit_group, 0);
    __builtin_unreachable();
  }
  const std::string_view program{words[0]};
  long error = -ENOENT;
  if (program.find('/') != std::string_view::npos) {
    error = call(__NR_execve, words[0], words, environment);
  } else {
    std::string_view path{path_variable};
    path.remove_prefix(std::string_view{"PATH="}.size());
    while (!path.empty() && error == -ENOENT) {
      Line file;
      file << take_until(path, ':') << "/" << program;
      error = call(__NR_execve, file.c_str(), words, environment);
    }
  }
  cannot_run(program, error);
}

[[noreturn]] void run_command(long input, long output, long error) noexcept {
  call(__NR_setsid);
  call(__NR_dup2, input, 0);
  call(__NR_dup2, output, 1);
  call(__NR_dup2, error, 2);
  const unsigned long none = 0;
  call(__NR_rt_sigprocmask, SIG_SETMASK, &none, nullptr, sizeof none);
  constexpr const char* kShell = "/bin/sh";
  if (!exists(kShell)) {
    run_words();
  }
  const char* words[] = {kShell, "-c", command, nullptr};
  cannot_run(kShell, call(__NR_execve, kShell, words, environment));
}

// --- In the parent

void woken(int) noexcept {}  // poll(2) returns, and that is all

extern "C" void guest_signal_return() noexcept;
asm("guest_signal_return: mov $15, %eax\n syscall\n");  // rt_sigreturn

/// Ended children are told of while poll(2) waits, and at no other time.
void watch_children() noexcept {
  struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
  } const action{&woken, SA_RESTORER | SA_NOCLDSTOP, &guest_signal_return, 0};  // struct kernel_sigaction
  call(__NR_rt_sigaction, SIGCHLD, &action, nullptr, sizeof action.mask);
  const unsigned long child = 1UL << (SIGCHLD - 1);
  call(__NR_rt_sigprocmask, SIG_BLOCK, &child, nullptr, sizeof child);
}

struct Pipe {
  int read = -1;
  int write = -1;

  Pipe() noexcept { call(__NR_pipe2, &read, O_CLOEXEC); }
};

/// Only ours: the command's end waits, as programs expect.
int without_waiting(int fd) noexcept {
  call(__NR_fcntl, fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/// Until the command has ended and all that it and its children said is on its way; returns its status.
int carry(long child, Relay& input, Relay& output, Relay& error) noexcept {
  Relay* const relays[] = {&input, &output, &error};
  int status = 0;
  bool ended = false;
  for (;;) {
    for (int reaped_status = 0; const long reaped = call(__NR_wait4, -1, &reaped_status, 1 /* WNOHANG */, nullptr);) {
      if (reaped < 0) {
        break;
      }
      if (reaped == child) {
        status = reaped_status;
        ended = true;
        input.end();
        call(__NR_kill, -1, SIGKILL);  // what it left running ends with it, and so do the pipes
      }
    }
    if (ended && output.ended() && error.ended()) {
      return status;
    }
    PollEntry entries[6];
    for (std::size_t i = 0; i < 3; ++i) {
      relays[i]->prepare(entries[2 * i], entries[2 * i + 1]);
    }
    const long patience[2] = {kLastWordsMs / 1000, 0};
    const unsigned long none = 0;
    const auto happened = call(__NR_ppoll, entries, 6, ended ? patience : nullptr, &none, sizeof none);
    if (happened == 0 && output.empty() && error.empty()) {
      return status;  // somebody who cannot even be killed holds a pipe
    }
    for (std::size_t i = 0; i < 3 && happened > 0; ++i) {
      relays[i]->step(entries[2 * i], entries[2 * i + 1]);
    }
  }
}

[[noreturn]] void run(char** given) noexcept {
  make_environment(given);
  prepare_system();
  const auto ports = open_ports(environment);
  read_command();
  watch_children();
  const Pipe in;
  const Pipe out;
  const Pipe err;
  const auto child = call(__NR_fork);
  if (child == 0) {
    run_command(in.read, out.write, err.write);
  }
  if (child < 0) {
    Line line;
    give_up(line << "the guest has no memory to start the command: error " << -child);
  }
  close(in.read);
  close(out.write);
  close(err.write);
  static Relay input{ports.input, without_waiting(in.write)};
  static Relay output{without_waiting(out.read), ports.output};
  static Relay error{without_waiting(err.read), ports.error};
  const auto status = status_line(carry(child, input, output, error));
  call(__NR_sync);
  write(ports.status, status.c_str(), status.view().size());
  for (;;) {
    sleep_ms(1'000'000);
  }
}

}  // namespace
}  // namespace guest

extern "C" [[noreturn]] void guest_main(char** given) { guest::run(given); }
