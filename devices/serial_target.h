#pragma once

#include <string>
#include <string_view>

#include "devices/host_stream.h"
#include "vmm/base/fd.h"
#include "vmm/base/unix_listener.h"

namespace martlet {

/// Where a serial port leads.
struct SerialTarget {
  enum class Kind {
    Stdio,   ///< our stdin and stdout
    Null,    ///< nowhere
    Pty,     ///< a new pseudo-terminal
    File,    ///< output into a file, truncated first; no input
    Socket,  ///< a Unix stream socket that listens
    Stdin,   ///< our stdin alone; a port that leads here is closed at its end
    Stdout,  ///< our stdout alone; a port that leads here is closed when it takes no more
    Stderr,  ///< our stderr, likewise
  };
  Kind kind = Kind::Stdio;
  std::string path;  ///< of File and Socket

  /// One of ours, one way: whoever is at the guest's end learns when nothing comes or goes any more.
  [[nodiscard]] bool one_way() const noexcept {
    return kind == Kind::Stdin || kind == Kind::Stdout || kind == Kind::Stderr;
  }
};

/// "stdio", "null", "pty", "file=PATH" or "socket=PATH"; anything else throws HostError.
[[nodiscard]] SerialTarget parse_serial_target(std::string_view text);

/// A new pseudo-terminal, its slave raw and held open: so it never hangs up, whoever comes and goes.
struct Pty {
  Fd master;  ///< non-blocking
  Fd slave;
  std::string path;  ///< the slave's
};
[[nodiscard]] Pty open_pty();

/// Where bytes go to and come from, each end empty when there is none.
struct HostEnds {
  std::string name;  ///< of where output goes, for people
  Pty pty;           ///< its master moved into `output`
  HostStream input;
  HostStream output;
  bool job_controlled = false;  ///< the input may be our controlling terminal
};
/// Opens what `target` names, but for a socket, whose clients come later. Throws HostError.
[[nodiscard]] HostEnds open_ends(const SerialTarget& target);

}  // namespace martlet
