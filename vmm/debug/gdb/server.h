#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"
#include "vmm/base/unix_listener.h"
#include "vmm/debug/gdb/stub.h"

namespace martlet::gdb {

/// Waits for gdb at a socket: one client at a time, the next one after it has left. While no client is there, the
/// machine is left alone. All on the event loop.
///
/// Whoever can connect has the whole guest in hand.
class Server {
 public:
  struct Options {
    std::string where;    ///< "[HOST:]PORT" (127.0.0.1 by default; port 0: any that is free) or "unix:PATH"
    std::string version;  ///< "Martlet 1.2.3"
  };

  /// Listens from now on. Throws HostError. Both outlive this.
  Server(EventLoop& loop, DebugTarget& target, const Options& options);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  /// What to tell gdb: `target remote ADDRESS`.
  [[nodiscard]] const std::string& address() const noexcept { return address_; }
  [[nodiscard]] bool has_client() const noexcept { return static_cast<bool>(client_); }

 private:
  void listen_at(std::string_view host, std::string_view port);
  void accept();
  void on_client(std::uint32_t events);
  [[nodiscard]] bool read();
  [[nodiscard]] bool write();
  void serve();
  void drop();

  EventLoop& loop_;
  Stub stub_;
  std::string address_;
  std::unique_ptr<UnixListener> unix_;
  Fd tcp_;
  int listener_ = -1;  // whichever of them it is
  Fd client_;
  std::string input_;  // read, but not taken yet
  bool serving_ = false;
};

}  // namespace martlet::gdb
