#include "virtio/driver.h"

#include "acpi.h"
#include "apic.h"
#include "args.h"
#include "check.h"
#include "idt.h"

extern "C" [[noreturn]] void __cxa_pure_virtual() { guest::halt_for_ever(); }

namespace guest::virtio {
namespace {

constexpr u8 kConfigVector = 0x28;  // MSI-X entry 0; entry 1 + N is queue N's
constexpr u8 kWireVector = 0x3c;
constexpr u8 kTickVector = 0x3d;            // wakes a wait, so that it can give up
constexpr u32 kTick = 100'000'000;          // 0.1 s where a tick is 1 ns
constexpr u64 kPatience = 60'000'000'000;   // cycles: some 20 s
constexpr u64 kIoApicDefault = 0xfec00000;  // where machines without ACPI have it

Queue queues[kMostQueues];
Transport* interrupting = nullptr;
volatile u32 queue_interrupts[kMostQueues];
volatile u32 interrupts = 0;
u64 last_vector = 0;

/// A queue that was empty when its interrupt was asked for: nothing is taken from it until that came.
struct Expectation {
  bool interrupt;
  u32 after;
};
Expectation expectations[kMostQueues];

void on_queue(u32 index) { queue_interrupts[index] = queue_interrupts[index] + 1; }

void on_msix(Frame& frame) {
  interrupts = interrupts + 1;
  if (frame.vector != kConfigVector) {
    const u32 first = static_cast<u32>(frame.vector) - kConfigVector - 1U;
    const u32 end = frame.vector == last_vector ? kMostQueues : first + 1;
    for (u32 i = first; i < end; ++i) {
      on_queue(i);
    }
  }
  LocalApic::end_of_interrupt();
}

void on_wire(Frame& /*frame*/) {
  interrupts = interrupts + 1;
  const u32 why = interrupting->take_interrupt();
  if ((why & 1U) != 0) {
    for (u32 i = 0; i < kMostQueues; ++i) {
      on_queue(i);
    }
  }
  LocalApic::end_of_interrupt();
}

void on_tick(Frame& /*frame*/) { LocalApic::end_of_interrupt(); }

}  // namespace

Queue& Driver::queue(u16 index) const { return queues[index]; }

bool Driver::find(const HvmStartInfo& info, DeviceId id) {
  if (word_is("transport", "mmio")) {
    MmioSlot slot;
    for (u32 i = 0; find_mmio_slot(i, slot); ++i) {
      if (mmio_.attach(slot) && mmio_.device_id() == id) {
        transport_ = &mmio_;
        return true;
      }
    }
    check(false, "a virtio-mmio device of this kind is there");
    return false;
  }
  const u64 ecam = word_is("config", "ports") ? 0 : find_ecam(info);
  check(ecam != 0 || word_is("config", "ports"), "ACPI tells of ECAM");
  const bool found = for_each_pci_function(ecam, [this, id](const PciFunction& function) {
    return function.read<u16>(kPciVendor) == kPciVendorId && function.read<u16>(kPciDevice) == kPciModernId + id &&
           pci_.attach(function);
  });
  check(found, "a virtio-pci device of this kind is there");
  transport_ = &pci_;
  return found;
}

void Driver::connect(const HvmStartInfo& info) {
  if (notice_ == Notice::Poll) {
    return;
  }
  silence_pics();
  LocalApic::enable(false);
  set_handler(kTickVector, on_tick);
  LocalApic::write(kApicTimerDivide, kDivideByOne);
  LocalApic::write(kApicTimer, kTickVector | kTimerPeriodic);
  LocalApic::write(kApicTimerInitial, kTick);
  interrupting = transport_;
  if (notice_ == Notice::Msix) {
    for (u8 i = 0; i <= kMostQueues; ++i) {
      set_handler(static_cast<u8>(kConfigVector + i), on_msix);
    }
    return;
  }
  u64 io_apic = kIoApicDefault;
  if (info.rsdp != 0) {
    io_apic = io_apic_address(info);
  }
  set_handler(kWireVector, on_wire);
  IoApic{io_apic}.route(transport_->use_wire(), kWireVector, static_cast<u8>(LocalApic::id()),
                        transport_->wire_is_level() ? IoApic::Trigger::Level : IoApic::Trigger::Edge);
}

bool Driver::open(const HvmStartInfo& info, DeviceId id, u64 wanted) {
  if (!find(info, id)) {
    return false;
  }
  ring_ = {.packed = word_is("ring", "packed"),
           .indirect = word_is("indirect", "on"),
           .event_index = word_is("event", "on")};
  notice_ = word_is("irq", "msix") ? Notice::Msix : word_is("irq", "wire") ? Notice::Wire : Notice::Poll;
  size_ = static_cast<u16>(number_word("size", size_));
  connect(info);
  return negotiate(wanted);
}

bool Driver::negotiate(u64 wanted) {
  const Transport& transport = *transport_;
  transport.set_status(0);
  const u64 since = read_tsc();
  while (transport.status() != 0) {
    if (read_tsc() - since > kPatience) {
      check(false, "a device that is reset says so");
      return false;
    }
  }
  transport.set_status(kAcknowledge);
  transport.set_status(kAcknowledge | kDriver);
  const u64 offered = transport.features();
  const u64 needed = kVersion1 | (ring_.packed ? kRingPacked : 0) | (ring_.indirect ? kIndirectDescriptors : 0) |
                     (ring_.event_index ? kEventIndex : 0);
  check_equal(offered & needed, needed, "what this driver needs is offered");
  features_ = needed | (wanted & offered);
  transport.accept(0, static_cast<u32>(features_));
  transport.accept(1, static_cast<u32>(features_ >> 32U));
  transport.set_status(kAcknowledge | kDriver | kFeaturesOk);
  const bool agreed = (transport.status() & kFeaturesOk) != 0;
  check(agreed, "the device agrees to what it offered");
  if (agreed && notice_ == Notice::Msix) {
    vectors_ = transport_->use_msix(kConfigVector);
    last_vector = static_cast<u64>(kConfigVector + vectors_ - 1);
    check(vectors_ >= 2, "there is MSI-X, with an interrupt for queues");
  }
  return agreed;
}

void Driver::add_queue(u16 index) {
  const u16 limit = transport_->queue_limit(index);
  check(limit != 0, "the queue exists");
  u16 size = size_ < limit ? size_ : limit;
  size = size < Queue::kMostDescriptors ? size : Queue::kMostDescriptors;
  u16 vector = kNoVector;
  if (notice_ == Notice::Msix) {
    vector = static_cast<u16>(index + 1U < vectors_ ? index + 1U : vectors_ - 1U);
  }
  queues[index].set_up(*transport_, index, size, vector, ring_);
  check(transport_->queue_enabled(index), "an enabled queue says so");
  expect_interrupt(index);
}

void Driver::start() {
  transport_->set_status(kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  check_equal(transport_->status(), kAcknowledge | kDriver | kFeaturesOk | kDriverOk, "the status of a started device");
}

bool Driver::wait(u16 index, Used& used) {
  if (wait_for(index, used, kPatience)) {
    return true;
  }
  check(queues[index].has_used(), "the device answers");
  return false;
}

bool Driver::is_due(u16 index) {
  if (notice_ == Notice::Poll) {
    return true;
  }
  auto& expected = expectations[index];
  if (expected.interrupt && queue_interrupts[index] == expected.after) {
    return false;
  }
  expected.interrupt = false;
  return true;
}

void Driver::expect_interrupt(u16 index) {
  if (notice_ != Notice::Poll) {
    expectations[index] = {!queues[index].want_interrupt(), queue_interrupts[index]};
  }
}

bool Driver::wait_for(u16 index, Used& used, u64 cycles) {
  const u64 since = read_tsc();
  while (true) {
    while (is_due(index)) {
      if (queues[index].take(used)) {
        expect_interrupt(index);
        return true;
      }
      expect_interrupt(index);
      if (notice_ == Notice::Poll) {
        break;
      }
    }
    // What came in the last moment, or whose interrupt is still on its way, is waited for.
    const u64 waited = read_tsc() - since;
    if (waited > cycles && !queues[index].has_used()) {
      return false;
    }
    if (waited > cycles + kPatience) {
      check(false, "used buffers come with an interrupt");
      return false;
    }
    notice_ == Notice::Poll ? pause() : wait_for_interrupt();
  }
}

bool Driver::is_same(u16 id, u16 expected) {
  check_equal(id, expected, "the request that comes back is the one that went");
  return id == expected;
}

void Driver::break_ring(u16 index) const {
  queue(index).break_ring();
  queue(index).kick();
}

void Driver::wait_for_needs_reset() const {
  const u64 since = read_tsc();
  while ((transport_->status() & kNeedsReset) == 0 && read_tsc() - since < kPatience) {
    pause();
  }
  check((transport_->status() & kNeedsReset) != 0, "a ring that cannot be followed needs a reset");
}

void Driver::report(const char* name) const {
  u32 requests = 0;
  u32 kicks = 0;
  for (const auto& queue : queues) {
    requests += queue.added;
    kicks += queue.kicks;
  }
  check(kicks <= requests, "no more notifications than requests");
  check((interrupts != 0) == (notice_ != Notice::Poll), "interrupts come when asked for, and only then");
  print(name, ": requests ", requests, " notifications ", kicks, " interrupts ", u32{interrupts}, "\n");
}

}  // namespace guest::virtio
