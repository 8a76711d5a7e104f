#include "vmm/gdb_access.h"

#include "vmm/base/error.h"
#include "vmm/terminal.h"

namespace martlet {

void GdbAccess::open(const std::string& where) {
  if (debugger_ == nullptr) {
    debugger_ = &machine_.debugger();
  }
  server_.emplace(machine_.loop(), *debugger_,
                  gdb::Server::Options{.where = where, .version = "Martlet " MARTLET_VERSION});
  say("gdb: target remote " + server_->address());
}

void GdbAccess::wait_for_client() { machine_.hold(); }

void GdbAccess::open_now(const std::string& where) {
  if (server_) {
    say("gdb: target remote " + server_->address());
    return;
  }
  try {
    open(where);
    return;
  } catch (const HostError&) {  // another VM's already
  }
  try {
    open("0");
  } catch (const HostError& error) {
    say(error.what());
  }
}

void GdbAccess::machine_ended(int exit_code) {
  if (debugger_ != nullptr) {
    debugger_->machine_ended(exit_code);
  }
}

}  // namespace martlet
