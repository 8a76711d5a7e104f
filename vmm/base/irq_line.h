#pragma once

#include "vmm/base/fd.h"

namespace martlet {

/// A device's end of an interrupt wire. Whoever builds the machine joins the other end to an
/// interrupt controller (an irqfd); a test reads it.
class IrqLine {
 public:
  IrqLine() : event_{make_eventfd()} {}

  /// One edge. May be called from any thread.
  void raise() const noexcept { signal_eventfd(event_.get()); }

  [[nodiscard]] int fd() const noexcept { return event_.get(); }

 private:
  Fd event_;
};

}  // namespace martlet
