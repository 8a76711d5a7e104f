#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmm/base/fd.h"

namespace martlet {

/// Puts the terminal on a descriptor into raw mode while this lives: every key goes to the guest. Does so
/// only while we are the terminal's foreground job; a descriptor that is no terminal is left alone.
///
/// The terminal gets its settings back however the program ends: here, at std::exit, by a fatal signal,
/// and while a SIGTSTP has us stopped. Only SIGKILL leaves it raw. Threads that should not run the
/// handlers block the signals, but one thread must leave SIGTSTP and SIGCONT unblocked.
///
/// Output is raw, too (no OPOST): the guest's own terminal driver has made \r\n of its \n, and a program
/// that switched that off means what it says. So whatever we print meanwhile ends its lines with \r\n.
class RawTerminal {
 public:
  /// At most one at a time: signal handlers have nothing but globals. Throws std::logic_error.
  explicit RawTerminal(int fd);
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal();

  [[nodiscard]] bool is_terminal() const noexcept { return is_terminal_; }
  /// An eventfd that counts SIGCONTs: time to look at the terminal again.
  [[nodiscard]] int continued_fd() const noexcept { return continued_.get(); }

 private:
  Fd continued_ = make_eventfd();
  bool is_terminal_ = false;
};

/// A line of ours on stderr. A terminal may be raw now, and gets its \r.
void say(std::string_view text);

/// Finds Martlet's own commands among what is typed: Ctrl-A, then a key. Ctrl-A twice or Ctrl-A a is one
/// Ctrl-A for the guest. Before any other key it was not meant for us, and both go to the guest.
class EscapeFilter {
 public:
  enum class Command { Quit, Help, Break, Nmi };
  struct Piece {
    std::vector<std::byte> bytes;    ///< for the guest
    std::optional<Command> command;  ///< then this
  };
  static constexpr std::string_view kHelp =
      "\r\n"
      "Ctrl-A x       end the VM\r\n"
      "Ctrl-A b       send a BREAK (Linux: sysrq, if a key follows within 5 s)\r\n"
      "Ctrl-A n       send an NMI to each CPU (Linux: unknown_nmi_panic=1 makes it a panic)\r\n"
      "Ctrl-A a       send Ctrl-A (so does Ctrl-A Ctrl-A)\r\n"
      "Ctrl-A h       this help\r\n";

  [[nodiscard]] std::vector<Piece> feed(std::span<const std::byte> typed);

 private:
  bool escaped_ = false;  // the last key was a Ctrl-A that nobody has seen yet
};

}  // namespace martlet
