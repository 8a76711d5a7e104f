// The stub's packets about the session itself, and about threads.

#include <fmt/format.h>

#include <array>

#include "vmm/debug/gdb/registers.h"
#include "vmm/debug/gdb/stub.h"
#include "vmm/debug/kernel_text.h"

namespace martlet::gdb {
namespace {

constexpr std::string_view kMalformed = "E16";  // EINVAL
constexpr std::string_view kNoThread = "E03";   // ESRCH
// QEMU's bits of how to step: enabled, interrupts off, timers off.
constexpr std::uint64_t kStepEnabled = 1;
constexpr std::uint64_t kStepNoInterrupts = 2;
constexpr std::uint64_t kStepNoTimers = 4;

std::string describe(const CpuState* cpu) {
  if (cpu == nullptr) {
    return "cannot be read";
  }
  switch (cpu->mp_state) {
    case KVM_MP_STATE_RUNNABLE:
      return cpu->user_mode() ? "user" : "kernel";
    case KVM_MP_STATE_HALTED:
      return "halted";
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      return "not started";
    default:
      return "stopped";
  }
}

/// The part that "qXfer:…:OFFSET,LENGTH" asks for.
std::string part_of(std::string_view text, Arguments args) {
  const auto offset = args.number();
  if (!offset || !args.take(",")) {
    return std::string{kMalformed};
  }
  const auto length = args.number();
  if (!length) {
    return std::string{kMalformed};
  }
  const auto rest = text.substr(std::min<std::uint64_t>(*offset, text.size()));
  const auto part = rest.substr(0, std::min<std::uint64_t>(*length, kMaxPacket / 2));
  return fmt::format("{}{}", part.size() == rest.size() ? 'l' : 'm', part);
}

}  // namespace

Stub::Reply Stub::supported(Arguments args) {
  while (!args.done()) {
    const auto feature = args.until(';');
    if (feature == "swbreak+" || feature == "hwbreak+") {
      run_.name_breakpoints(true);
    }
    shows_errors_ = shows_errors_ || feature == "error-message+";
  }
  return fmt::format(
      "PacketSize={:x};QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+;binary-upload+;error-message+;"
      "qXfer:features:read+;qXfer:memory-map:read+",
      kMaxPacket);
}

Stub::Reply Stub::no_ack(Arguments /*args*/) {
  acknowledges_ = false;
  reader_.ignore_checksums();
  return "OK";
}

Stub::Reply Stub::why_stopped(Arguments /*args*/) { return run_.stop_reply(); }

Stub::Reply Stub::attached(Arguments /*args*/) { return "1"; }

Stub::Reply Stub::detach(Arguments /*args*/) {
  run_.leave();
  done_ = true;
  return "OK";
}

Stub::Reply Stub::kill(Arguments /*args*/) {
  done_ = true;
  target_.quit();
  return std::nullopt;
}

Stub::Reply Stub::kill_politely(Arguments args) {
  static_cast<void>(kill(args));
  return "OK";
}

Stub::Reply Stub::restart(Arguments /*args*/) {
  target_.reset();
  return std::nullopt;
}

Stub::Reply Stub::monitor(Arguments args) {
  const auto command = from_hex(args.rest());
  if (!command) {
    return std::string{kMalformed};
  }
  say_unsaid();
  if (const auto text = answer(*command)) {
    say(*text);
  } else {
    say(fmt::format("unknown command: {:.200}; `monitor help` lists what there is\n", *command));
  }
  return "OK";
}

std::optional<std::string> Stub::answer(std::string_view command) {
  if (command == "help") {
    return "info version    what this is\n"
           "info registers  of the selected vCPU\n"
           "info kaslr      where the kernel runs\n"
           "reset           as the guest's own reset\n"
           "quit            ends the VM\n" +
           target_.monitor_help();
  }
  if (command == "info version") {  // Linux' gdb scripts take any answer for a sign that threads are CPUs
    return options_.version + "\n";
  }
  if (command == "info registers") {
    const auto* const cpu = run_.read(cpu_);
    return cpu != nullptr ? registers_for_people(*cpu) : "cannot read vCPU's registers\n";
  }
  if (command == "info kaslr") {
    const auto text = kernel_text();
    return text ? fmt::format("kernel text at {:#x}, KASLR offset {:#x}\n", *text, *text - kLinkedKernelText)
                : "no Linux kernel is mapped\n";
  }
  if (command == "reset") {
    target_.reset();
    return "";
  }
  if (command == "quit") {
    target_.quit();
    return "";
  }
  return target_.monitor(command);
}

std::optional<std::uint64_t> Stub::kernel_text() {
  for (std::size_t i = 0; i <= target_.cpu_count(); ++i) {  // the selected one, then all
    const auto* const cpu = run_.read(i == 0 ? cpu_ : i - 1);
    if (const auto text = cpu != nullptr ? find_kernel_text(target_.memory(), *cpu) : std::nullopt) {
      return text;
    }
  }
  return std::nullopt;
}

/// gdb asks when it has a symbol file, and moves its symbols: all segments as far as the first.
Stub::Reply Stub::offsets(Arguments /*args*/) {
  const auto text = kernel_text();
  return text ? fmt::format("TextSeg={:x}", *text) : "";
}

Stub::Reply Stub::physical_mode(Arguments /*args*/) { return run_.memory().physical() ? "1" : "0"; }

Stub::Reply Stub::set_physical_mode(Arguments args) {
  const auto mode = args.number();
  if (!mode || *mode > 1) {
    return std::string{kMalformed};
  }
  run_.memory().set_physical(*mode == 1);
  return "OK";
}

Stub::Reply Stub::step_bits(Arguments /*args*/) {
  return fmt::format("ENABLE={:x},NOIRQ={:x},NOTIMER={:x}", kStepEnabled, kStepNoInterrupts, kStepNoTimers);
}

Stub::Reply Stub::set_step_bits(Arguments args) {
  const auto bits = args.number();
  if (!bits) {
    return std::string{kMalformed};
  }
  run_.block_interrupts((*bits & kStepNoInterrupts) != 0);
  return "OK";
}

Stub::Reply Stub::describe_target(Arguments args) {
  const auto* const cpu = run_.read(cpu_);
  return part_of(target_description(cpu != nullptr && cpu->has_avx), args);
}

/// gdb will not touch what is not in it, and it means the addresses that it uses: virtual ones.
Stub::Reply Stub::describe_memory(Arguments args) {
  std::string xml =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD GDB Memory Map V1.0//EN\" "
      "\"http://sourceware.org/gdb/gdb-memory-map.dtd\">\n<memory-map>\n";
  const auto add = [&](std::uint64_t start, std::uint64_t size) {
    xml += fmt::format("<memory type=\"ram\" start=\"{:#x}\" length=\"{:#x}\"/>\n", start, size);
  };
  if (run_.memory().physical()) {
    for (const auto& region : target_.memory().regions()) {
      add(raw(region.range.start), region.range.size);
    }
  } else {
    constexpr std::uint64_t half = std::uint64_t{1} << 56U;  // canonical addresses, with five levels
    add(0, half);
    add(-half, half);
  }
  return part_of(xml + "</memory-map>\n", args);
}

/// A thread's id: 1 is vCPU 0; 0 is any and -1 all, for which the one that stopped stands.
std::optional<std::size_t> Stub::parse_cpu(Arguments& args) const {
  if (args.take("-1")) {
    return run_.stopped_cpu();
  }
  const auto id = args.number();
  if (!id || *id > target_.cpu_count()) {
    return std::nullopt;
  }
  return *id == 0 ? run_.stopped_cpu() : static_cast<std::size_t>(*id - 1);
}

Stub::Reply Stub::select(Arguments args) {
  const bool general = args.take("g");
  if (!general && !args.take("c")) {
    return std::string{kMalformed};
  }
  const auto cpu = parse_cpu(args);
  if (!cpu) {
    return std::string{kNoThread};
  }
  (general ? cpu_ : step_cpu_) = *cpu;
  return "OK";
}

Stub::Reply Stub::is_alive(Arguments args) { return parse_cpu(args) ? "OK" : std::string{kNoThread}; }

Stub::Reply Stub::current_thread(Arguments /*args*/) { return fmt::format("QC{:x}", cpu_ + 1); }

Stub::Reply Stub::threads(Arguments /*args*/) {
  std::string ids = "m";
  for (std::size_t cpu = 0; cpu < target_.cpu_count(); ++cpu) {
    ids += fmt::format("{}{:x}", cpu == 0 ? "" : ",", cpu + 1);
  }
  return ids;
}

Stub::Reply Stub::no_more_threads(Arguments /*args*/) { return "l"; }

Stub::Reply Stub::thread_info(Arguments args) {
  const auto cpu = parse_cpu(args);
  return cpu ? to_hex(fmt::format("vCPU {}: {}", *cpu, describe(run_.read(*cpu)))) : std::string{kNoThread};
}

}  // namespace martlet::gdb
