#pragma once

#include <optional>
#include <string>

#include "vmm/debug/gdb/server.h"
#include "vmm/machine.h"

namespace martlet {

/// gdb's way to a machine, opened at the start or while it runs. On the loop's thread.
class GdbAccess {
 public:
  explicit GdbAccess(Machine& machine) : machine_{machine} {}

  /// Waits for gdb at `where`; says how to reach it. Throws HostError.
  void open(const std::string& where);
  /// Stops the machine before its first instruction, until gdb says go. Before Machine::run().
  void wait_for_client();
  /// The same as open(), if nobody has done it yet, or at any port of this host if not there; what stands in the way
  /// is said, not thrown.
  void open_now(const std::string& where);
  /// The VM has ended.
  void machine_ended(int exit_code);

 private:
  Machine& machine_;
  MachineDebugger* debugger_ = nullptr;
  std::optional<gdb::Server> server_;
};

}  // namespace martlet
