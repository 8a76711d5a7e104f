#include "vmm/kvm/exit.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <system_error>

namespace martlet {

Exit decode(kvm_run& run) noexcept {
  switch (run.exit_reason) {
    case KVM_EXIT_IO: {
      auto* const data = reinterpret_cast<std::byte*>(&run) + run.io.data_offset;
      return PortIo{.direction = run.io.direction == KVM_EXIT_IO_OUT ? Direction::Write : Direction::Read,
                    .size = run.io.size,
                    .port = run.io.port,
                    .data = {data, std::size_t{run.io.size} * run.io.count}};
    }
    case KVM_EXIT_MMIO:
      return Mmio{.direction = run.mmio.is_write != 0 ? Direction::Write : Direction::Read,
                  .addr = GuestAddr{run.mmio.phys_addr},
                  .data = std::as_writable_bytes(std::span{run.mmio.data}).first(std::min(run.mmio.len, 8U))};
    case KVM_EXIT_INTR:
      return Interrupted{};
    case KVM_EXIT_HLT:
      return Halted{};
    case KVM_EXIT_SHUTDOWN:
      return Shutdown{};
    case KVM_EXIT_SYSTEM_EVENT:
      return SystemEvent{.type = run.system_event.type};
    case KVM_EXIT_DEBUG:
      return Debug{.arch = run.debug.arch};
    case KVM_EXIT_INTERNAL_ERROR:
      return KvmFault{.reason = run.exit_reason, .code = run.internal.suberror};
    case KVM_EXIT_FAIL_ENTRY:
      return KvmFault{.reason = run.exit_reason, .code = run.fail_entry.hardware_entry_failure_reason};
    default:
      return KvmFault{.reason = run.exit_reason, .code = 0};
  }
}

namespace {

struct Access {
  Direction direction;
  std::uint64_t addr;
  std::size_t size;           // of one item
  std::span<std::byte> data;  // string I/O: several items, all for the same address
};

void serve(const Bus& bus, const Access& access, Bus::LastHit& last, std::vector<std::uint64_t>& counts) noexcept {
  const auto* const entry = bus.find(access.addr, access.size, last);
  if (entry == nullptr) {
    ++counts.back();
    if (access.direction == Direction::Read) {
      std::ranges::fill(access.data, std::byte{0xff});
    }
    return;
  }
  ++counts[bus.index_of(*entry)];
  const std::uint64_t offset = access.addr - entry->start;
  for (auto rest = access.data; !rest.empty(); rest = rest.subspan(access.size)) {
    const auto item = rest.first(access.size);
    if (access.direction == Direction::Read) {
      entry->device->read(offset, item);
    } else {
      entry->device->write(offset, item);
    }
  }
}

}  // namespace

bool Dispatcher::dispatch(const Exit& exit) noexcept {
  ++counts_.exits;
  if (const auto* io = std::get_if<PortIo>(&exit)) {
    serve(buses_->ports, {.direction = io->direction, .addr = io->port, .size = io->size, .data = io->data}, last_port_,
          counts_.ports);
    return true;
  }
  if (const auto* mmio = std::get_if<Mmio>(&exit)) {
    serve(buses_->mmio,
          {.direction = mmio->direction, .addr = raw(mmio->addr), .size = mmio->data.size(), .data = mmio->data},
          last_mmio_, counts_.mmio);
    return true;
  }
  if (std::holds_alternative<Interrupted>(exit)) {
    ++counts_.interrupted;
  }
  return false;
}

namespace {

std::string describe(const KvmFault& fault) {
  switch (fault.reason) {
    case KVM_EXIT_INTERNAL_ERROR:
      return fmt::format("KVM internal error, suberror {}{}", fault.code,
                         fault.code == KVM_INTERNAL_ERROR_EMULATION ? " (an instruction it cannot emulate)" : "");
    case KVM_EXIT_FAIL_ENTRY:
      return fmt::format("the CPU refused to enter the guest, hardware reason {:#x}", fault.code);
    default:
      return fmt::format("KVM exit {} that Martlet does not know", fault.reason);
  }
}

Ending ending_of_event(std::uint32_t type) {
  switch (type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
      return {.kind = Ending::Kind::PowerOff, .detail = "by a KVM system event"};
    case KVM_SYSTEM_EVENT_RESET:
      return {.kind = Ending::Kind::Reset, .detail = "by a KVM system event"};
    case KVM_SYSTEM_EVENT_CRASH:
      return {.kind = Ending::Kind::Panic, .detail = "by a KVM system event"};
    default:
      return {.kind = Ending::Kind::KvmError, .detail = fmt::format("unknown KVM system event {}", type)};
  }
}

}  // namespace

Ending ending_of(const Exit& exit, int vcpu) {
  Ending ending{.kind = Ending::Kind::KvmError, .detail = "an exit that does not end a VM"};
  if (const auto* event = std::get_if<SystemEvent>(&exit)) {
    ending = ending_of_event(event->type);
  } else if (const auto* fault = std::get_if<KvmFault>(&exit)) {
    ending.detail = describe(*fault);
  } else if (const auto* failed = std::get_if<RunFailed>(&exit)) {
    ending.detail = "KVM_RUN failed: " + std::generic_category().message(failed->error);
  } else if (std::holds_alternative<Shutdown>(exit)) {
    ending = {.kind = Ending::Kind::TripleFault, .detail = "triple fault"};
  } else if (std::holds_alternative<Halted>(exit)) {
    ending.detail = "HLT left the kernel, though KVM has the interrupt controller";
  } else if (std::holds_alternative<Debug>(exit)) {
    ending.detail = "a debug exit that nobody asked for";
  }
  ending.vcpu = vcpu;
  return ending;
}

}  // namespace martlet
