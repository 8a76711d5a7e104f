#pragma once

#include <cstdint>

#include "vmm/base/irq_line.h"

namespace martlet {

/// A message-signalled interrupt (PCI Local Bus 3.0 §6.8): a write of `data` to `address`.
struct MsiMessage {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  friend bool operator==(const MsiMessage&, const MsiMessage&) noexcept = default;
};

/// Joins wires to message-signalled interrupts. Whoever builds the machine does it with KVM's irqfds and
/// GSI routes; a test only remembers. Any thread.
class MsiRouter {
 public:
  /// Each raise() of `line` sends `message` from now on, and one raised before and not yet sent does at
  /// once: so a masked vector keeps what is pending in its line. Replaces an earlier message.
  virtual void connect(const IrqLine& line, const MsiMessage& message) noexcept = 0;
  /// From now on `line` keeps what is raised.
  virtual void disconnect(const IrqLine& line) noexcept = 0;

 protected:
  ~MsiRouter() = default;
};

}  // namespace martlet
