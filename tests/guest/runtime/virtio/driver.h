#pragma once
// What every virtio driver does, §3.1: find the device, negotiate, set queues up, wait for interrupts.
//
// The command line says how: transport=pci|mmio, config=ecam|ports (of PCI), ring=split|packed,
// indirect=on|off, event=on|off (the event index), irq=poll|msix|wire, size=N (of each queue).

#include "virtio/mmio_transport.h"
#include "virtio/pci_transport.h"
#include "virtio/queue.h"

namespace guest::virtio {

enum class Notice : u8 { Poll, Msix, Wire };

/// One at a time: there is but one table of interrupt handlers.
class Driver {
 public:
  /// Finds the first device of this kind and agrees on features: of `wanted` what is offered, and of the
  /// rings' own what the command line asks for, which has to be offered. False, after saying why, when
  /// that does not work out.
  bool open(const HvmStartInfo& info, DeviceId id, u64 wanted);
  /// Resets the device and agrees on features again.
  bool negotiate(u64 wanted);
  /// The next queue, enabled. Before start(), or again after reset_queue().
  void add_queue(u16 index);
  /// DRIVER_OK: requests may go.
  void start();

  [[nodiscard]] bool has(u64 feature) const { return (features_ & feature) == feature; }
  [[nodiscard]] Queue& queue(u16 index) const;
  [[nodiscard]] Transport& transport() const { return *transport_; }
  [[nodiscard]] const RingOptions& ring() const { return ring_; }
  template <class T>
  [[nodiscard]] T config(u64 offset) const {
    return mmio_read<T>(transport_->config() + offset);
  }

  /// Until the queue has a used request and, unless polling, the interrupt that it owes has come. False,
  /// after a failed check, when that takes very long.
  bool wait(u16 index, Used& used);
  /// The same for so many cycles: that nothing comes is no failed check.
  [[nodiscard]] bool wait_for(u16 index, Used& used, u64 cycles);
  /// One request, from available to used.
  template <u32 Count>
  bool request(u16 index, const Buffer (&buffers)[Count], Used& used) {
    const u16 id = queue(index).add(buffers);
    queue(index).kick();
    return wait(index, used) && is_same(used.id, id);
  }
  /// Makes the queue's ring one that cannot be followed.
  void break_ring(u16 index) const;
  /// Until the device asks for a reset; a failed check when it does not.
  void wait_for_needs_reset() const;
  /// One line: how many requests, notifications and interrupts there were.
  void report(const char* name) const;

 private:
  bool find(const HvmStartInfo& info, DeviceId id);
  void connect(const HvmStartInfo& info);
  [[nodiscard]] bool is_due(u16 index);
  void expect_interrupt(u16 index);
  static bool is_same(u16 id, u16 expected);

  PciTransport pci_;
  MmioTransport mmio_;
  Transport* transport_ = nullptr;
  RingOptions ring_;
  Notice notice_ = Notice::Poll;
  u64 features_ = 0;
  u16 size_ = 16;
  u16 vectors_ = 0;  // of MSI-X
};

}  // namespace guest::virtio
