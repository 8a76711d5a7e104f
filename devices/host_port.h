#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "devices/host_stream.h"
#include "devices/serial_target.h"
#include "vmm/base/event_loop.h"

namespace martlet {

/// The host's end of a port that moves bytes in bulk: opens what a SerialTarget names, takes the clients of a
/// socket one after another, reads and writes without waiting and says when it is worth another try. It keeps
/// no bytes of its own. On the event loop's thread only.
class HostPort final {
 public:
  /// All are needed. Called from the loop, or from within a call here.
  struct Hooks {
    std::function<void()> readable;                 ///< after read() returned 0: ask it again
    std::function<void()> writable;                 ///< after write() returned -EAGAIN: the same
    std::function<void(bool connected)> connected;  ///< a client of the socket came or left
  };

  /// Throws HostError when `target` cannot be opened.
  HostPort(EventLoop& loop, const SerialTarget& target, Hooks hooks);
  HostPort(const HostPort&) = delete;
  HostPort& operator=(const HostPort&) = delete;
  ~HostPort();

  /// All are, but a socket without a client, and a one-way stream that has ended.
  [[nodiscard]] bool connected() const noexcept { return listener_ ? static_cast<bool>(input_) : !ended_; }

  /// Leads to one of our own streams.
  [[nodiscard]] bool one_way() const noexcept { return one_way_; }
  /// The socket's client left, and may have said more than was read.
  [[nodiscard]] bool hung_up() const noexcept { return hung_up_; }

  /// Bytes read, at most what `into` holds (not nothing); 0 when none are there: `readable` will be called, if
  /// more can ever come. A client that left counts as connected until all it had said is read.
  [[nodiscard]] std::size_t read(std::span<const iovec> into) noexcept;
  /// `readable` will be called when there is input, before anybody asked for it.
  void expect_input() noexcept;
  /// No `readable` any more until read() is called again: nobody has room for input.
  void pause_input() noexcept;
  /// Nobody wants the input: what a client said that has left is forgotten. Of others it stays where it is.
  void refuse_input() noexcept;

  /// Bytes written; -EAGAIN when the host takes none now, `writable` will be called; -EPIPE when nobody is there
  /// to read, before a client comes. What can never be read counts as written.
  [[nodiscard]] std::ptrdiff_t write(std::span<const iovec> parts) noexcept;
  /// Waits until it is worth calling write() again; false when the time ran out first.
  [[nodiscard]] bool wait_writable(std::chrono::milliseconds patience) noexcept;

  /// The pty's slave, for the user to open; empty for other targets.
  [[nodiscard]] const std::string& pty_path() const noexcept { return pty_.path; }
  /// Why output or input ended early, one line; empty when all is well.
  [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }
  /// What is written to, for people.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  [[nodiscard]] bool in_background() const noexcept;
  void watch_input(std::uint32_t events) noexcept;
  void watch_output() noexcept;
  void unwatch_input() noexcept;
  void unwatch_output() noexcept;
  void end_output(int error) noexcept;
  void accept_client() noexcept;
  void listen_again(bool again) noexcept;
  void client_hung_up();
  void client_left() noexcept;

  EventLoop& loop_;
  Hooks hooks_;
  std::string name_;
  std::string trouble_;
  Pty pty_;
  std::optional<UnixListener> listener_;
  HostStream input_;
  HostStream output_;
  bool input_watched_ = false;
  bool output_watched_ = false;
  bool one_way_ = false;
  bool ended_ = false;           // and it is one-way
  bool hung_up_ = false;         // the client left; we read what it said last
  bool job_controlled_ = false;  // the input may be our controlling terminal
};

}  // namespace martlet
