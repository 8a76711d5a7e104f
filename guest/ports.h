#pragma once

namespace guest {

/// The ways to the host, as descriptors that never wait.
struct Ports {
  long input;   ///< for the command to read; at its end when the host's is
  long output;  ///< what it says on stdout
  long error;   ///< … and on stderr
  long status;  ///< how it ended
};

/// Waits for them to appear and opens them; gives up, saying what is missing, when they do not.
Ports open_ports(char** environment) noexcept;

}  // namespace guest
