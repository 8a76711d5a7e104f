#pragma once

#include "vmm/base/fd.h"

namespace martlet {

/// A device's end of a level-triggered interrupt wire. Whoever builds the machine joins the other end to an
/// interrupt controller (an irqfd with KVM_IRQFD_FLAG_RESAMPLE); a test reads it. The wire stays asserted
/// until the guest ends the interrupt (EOI); then it falls, resampled() becomes readable, and its owner
/// raises it again if there is still a reason to. Several devices may share an interrupt, each with a wire.
class LevelLine {
 public:
  /// Asserts it. Any thread; again while asserted has no effect.
  void raise() const noexcept { signal_eventfd(raise_.get()); }

  [[nodiscard]] int fd() const noexcept { return raise_.get(); }
  /// An eventfd that is signalled after each EOI.
  [[nodiscard]] int resampled() const noexcept { return resampled_.get(); }

 private:
  Fd raise_ = make_eventfd();
  Fd resampled_ = make_eventfd();
};

}  // namespace martlet
