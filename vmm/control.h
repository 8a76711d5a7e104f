#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet {

/// By what others find a VM that runs here: an abstract Unix socket (unix(7)) "martlet/PID/NAME", of type SEQPACKET. It
/// leaves no file behind, and /proc/net/unix lists it. A request is one message, so is its answer: "done TEXT" or
/// "failed TEXT". Only the VM's owner and root are answered anything else than that they are not.
struct VmAddress {
  pid_t pid = 0;
  std::string name{};  ///< --name; "" without

  friend bool operator==(const VmAddress&, const VmAddress&) = default;
};

/// Longest request and answer.
inline constexpr std::size_t kControlMessage = 8192;

/// A name that --name may give: up to 64 letters, digits, '-', '_' and '.', not all digits. Throws HostError.
void check_vm_name(std::string_view name);

/// The VMs of this network namespace, by /proc/net/unix's contents.
[[nodiscard]] std::vector<VmAddress> parse_unix_sockets(std::string_view table);

struct ControlAddress {
  sockaddr_un address{};
  socklen_t size = 0;
};
[[nodiscard]] ControlAddress control_address(const VmAddress& vm);

/// A VM's end. On the loop's thread.
class ControlSocket {
 public:
  /// To be called once, now or later; dropped uncalled, the client sees the connection end.
  using Answer = std::function<void(std::string_view text)>;
  struct Reply {
    Answer done;
    Answer failed;
  };
  using Handler = std::function<void(std::string_view request, const Reply& reply)>;

  /// Throws HostError when nobody can listen there.
  ControlSocket(EventLoop& loop, std::string_view name, Handler handler);
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;
  ~ControlSocket();

 private:
  void accept();
  void read(int client);

  EventLoop& loop_;
  Handler handler_;
  Fd socket_;
  std::map<int, std::shared_ptr<Fd>> clients_;  // that have asked for nothing yet
};

/// The other end: sends `request` to `vm` (a PID or a name) and waits for the answer. Throws HostError with what stood
/// in the way, in the VM's words where it said some.
[[nodiscard]] std::string ask_vm(std::string_view vm, std::string_view request);

}  // namespace martlet
