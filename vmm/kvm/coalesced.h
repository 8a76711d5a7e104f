#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "vmm/kvm/exit.h"
#include "vmm/kvm/uapi.h"

namespace martlet {

/// Guest writes that KVM has put aside in a ring instead of leaving the guest for each one
/// (KVM API documentation, section 4.31, KVM_CAP_COALESCED_PIO). They are served before any later
/// exit is, so a device sees its guest's accesses in order.
class CoalescedWrites {
 public:
  /// `vm` outlives this. The ring is found by attach().
  CoalescedWrites(int vm, const Buses& buses) : vm_{vm}, dispatcher_{buses} {}

  /// The ring lies behind any vCPU's struct kvm_run, at page `page` (KVM_CHECK_EXTENSION's answer).
  void attach(kvm_run& run, int page) noexcept;

  /// Lets KVM put writes to the `size` ports from `port` on aside from now on, or no more. From any thread.
  /// False when KVM refuses.
  bool coalesce(std::uint16_t port, std::uint32_t size, bool enabled) noexcept;

  /// Serves what has been put aside. From any thread; one look at two integers when there is nothing.
  void drain() noexcept {
    if (ring_ != nullptr && std::atomic_ref{ring_->first}.load(std::memory_order_acquire) !=
                                std::atomic_ref{ring_->last}.load(std::memory_order_acquire)) {
      drain_slowly();
    }
  }

  /// What drain() has served. Only when no vCPU runs.
  [[nodiscard]] const ExitCounts& counts() noexcept { return dispatcher_.counts(); }

 private:
  void drain_slowly() noexcept;

  int vm_;
  kvm_coalesced_mmio_ring* ring_ = nullptr;
  std::mutex mutex_;  // one server at a time, so that entries are served in order
  Dispatcher dispatcher_;
};

}  // namespace martlet
