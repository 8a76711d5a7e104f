#include "vmm/terminal.h"

#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace martlet {
namespace {

// What would end us with a terminal left raw: faults, whoever handles them besides (a sanitizer), and
// requests that nobody handles.
constexpr std::array kFaults{SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGSYS, SIGTRAP};
constexpr std::array kRequests{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
constexpr std::array kJobControl{SIGTSTP, SIGCONT};

// The one terminal. Global, because a signal handler and std::exit have no other way to it.
struct Terminal {
  int fd = -1;
  int continued = -1;
  termios original{};
  std::atomic<bool> raw = false;
  std::array<struct sigaction, NSIG> previous{};
  std::array<bool, NSIG> handled{};
};
static_assert(std::atomic<bool>::is_always_lock_free);  // for the handlers
Terminal the_terminal;

// All below is async-signal-safe, but for the constructor and the destructor.

/// A background process that changes its terminal is stopped by SIGTTOU, unless it blocks that.
void set(const termios& settings) {
  sigset_t ttou;
  sigset_t before;
  ::sigemptyset(&ttou);
  ::sigaddset(&ttou, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &ttou, &before);
  while (::tcsetattr(the_terminal.fd, TCSANOW, &settings) != 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void restore() {
  if (the_terminal.raw.exchange(false)) {
    set(the_terminal.original);
  }
}

void make_raw_in_foreground() {
  if (::tcgetpgrp(the_terminal.fd) != ::getpgrp()) {
    return;
  }
  // Raw already, after a SIGSTOP: the shell may have changed that, and `original` still holds.
  if (!the_terminal.raw && ::tcgetattr(the_terminal.fd, &the_terminal.original) != 0) {
    return;
  }
  termios raw = the_terminal.original;
  ::cfmakeraw(&raw);
  the_terminal.raw = true;  // first: better restored needlessly than not at all
  set(raw);
}

void handle(int signal, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  ::sigfillset(&action.sa_mask);
  ::sigaction(signal, &action, &the_terminal.previous[static_cast<std::size_t>(signal)]);
  the_terminal.handled[static_cast<std::size_t>(signal)] = true;
}

void handle_no_more(int signal) {
  if (std::exchange(the_terminal.handled[static_cast<std::size_t>(signal)], false)) {
    ::sigaction(signal, &the_terminal.previous[static_cast<std::size_t>(signal)], nullptr);
  }
}

void on_fatal(int signal, siginfo_t* info, void* /*context*/) {
  const int error = errno;
  restore();
  handle_no_more(signal);
  // An instruction at fault faults again once we return, now for the previous handler and with a true
  // core dump. Anything else is sent again, and arrives when we return.
  const bool recurs =
      info->si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL);
  if (!recurs) {
    ::raise(signal);
  }
  errno = error;
}

void on_stop(int signal, siginfo_t* /*info*/, void* /*context*/) {
  const int error = errno;
  restore();
  handle_no_more(signal);
  ::raise(signal);
  sigset_t stop;
  ::sigemptyset(&stop);
  ::sigaddset(&stop, signal);
  ::pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);  // here we are stopped, until SIGCONT
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  handle(signal, on_stop);
  make_raw_in_foreground();  // or not stopped at all: an orphaned job cannot be
  errno = error;
}

void on_continue(int /*signal*/, siginfo_t* /*info*/, void* /*context*/) {
  const int error = errno;
  make_raw_in_foreground();
  signal_eventfd(the_terminal.continued);
  errno = error;
}

bool is_default(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) == 0 &&
         action.sa_handler == SIG_DFL;
}

}  // namespace

RawTerminal::RawTerminal(int fd) : is_terminal_{::isatty(fd) == 1} {
  if (!is_terminal_) {
    return;
  }
  if (the_terminal.fd >= 0) {
    throw std::logic_error{"a second RawTerminal"};
  }
  the_terminal.fd = fd;
  the_terminal.continued = continued_.get();
  static const bool kAtExit [[maybe_unused]] = std::atexit(restore) == 0;
  for (const int signal : kFaults) {
    handle(signal, on_fatal);
  }
  for (const int signal : kRequests) {
    if (is_default(signal)) {
      handle(signal, on_fatal);
    }
  }
  if (is_default(SIGTSTP)) {
    handle(SIGTSTP, on_stop);
  }
  handle(SIGCONT, on_continue);
  make_raw_in_foreground();
}

RawTerminal::~RawTerminal() {
  if (!is_terminal_) {
    return;
  }
  for (const int signal : kJobControl) {
    handle_no_more(signal);
  }
  restore();
  for (const int signal : kFaults) {
    handle_no_more(signal);
  }
  for (const int signal : kRequests) {
    handle_no_more(signal);
  }
  the_terminal.fd = -1;
}

std::vector<EscapeFilter::Piece> EscapeFilter::feed(std::span<const std::byte> typed) {
  constexpr std::byte kCtrlA{0x01};
  std::vector<Piece> pieces(1);
  const auto command = [&pieces](Command which) {
    pieces.back().command = which;
    pieces.emplace_back();
  };
  for (const auto key : typed) {
    auto& bytes = pieces.back().bytes;
    if (!std::exchange(escaped_, false)) {
      if (key == kCtrlA) {
        escaped_ = true;
      } else {
        bytes.push_back(key);
      }
      continue;
    }
    switch (std::to_integer<char>(key)) {
      case 'x':
        command(Command::Quit);
        break;
      case 'h':
        command(Command::Help);
        break;
      case 'b':
        command(Command::Break);
        break;
      case 'n':
        command(Command::Nmi);
        break;
      case 'a':
      case std::to_integer<char>(kCtrlA):
        bytes.push_back(kCtrlA);
        break;
      default:
        bytes.insert(bytes.end(), {kCtrlA, key});
        break;
    }
  }
  if (pieces.back().bytes.empty()) {
    pieces.pop_back();
  }
  return pieces;
}

void say(std::string_view text) {
  fmt::print(stderr, "martlet: {}{}\n", text, ::isatty(STDERR_FILENO) == 1 ? "\r" : "");
}

}  // namespace martlet
