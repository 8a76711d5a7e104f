// The stub's packets that run the machine, and those that look at registers and memory.

#include <fmt/format.h>

#include <algorithm>

#include "vmm/debug/gdb/registers.h"
#include "vmm/debug/gdb/stub.h"

namespace martlet::gdb {
namespace {

constexpr std::size_t kMaxUnsaid = 1024;
constexpr std::string_view kMalformed = "E16";    // EINVAL
constexpr std::string_view kNoRegisters = "E05";  // EIO
constexpr std::string_view kNoMemory = "E0e";     // EFAULT

std::optional<Breakpoint> parse_breakpoint(Arguments& args) {
  const auto kind = args.number();
  if (!kind || !args.take(",")) {
    return std::nullopt;
  }
  const auto addr = args.number();
  if (!addr || !args.take(",")) {
    return std::nullopt;
  }
  const auto length = args.number();
  if (!length) {
    return std::nullopt;
  }
  return Breakpoint{.at = static_cast<StopAt>(*kind), .addr = *addr, .length = *length};
}

/// Kinds that we know nothing of are no mistake: gdb tries.
bool is_known(std::string_view packet) {
  return packet.size() > 1 && packet[0] >= '0' && packet[0] <= '4' && packet[1] == ',';
}

/// "s", "C05", "r1000,1010", …: what is before the thread's id.
std::optional<Action> parse_action(Arguments& args) {
  using Kind = Action::Kind;
  if (args.take("c")) {
    return Action{.kind = Kind::Continue};
  }
  if (args.take("s")) {
    return Action{.kind = Kind::Step};
  }
  if (args.take("t")) {
    return Action{.kind = Kind::Stay};
  }
  if (args.take("r")) {
    const auto start = args.number();
    const auto end = args.take(",") ? args.number() : std::nullopt;
    return start && end ? std::optional{Action{.kind = Kind::Step, .start = *start, .end = *end}} : std::nullopt;
  }
  const bool steps = args.take("S");  // with a signal, which a machine has none of
  if ((steps || args.take("C")) && args.number()) {
    return Action{.kind = steps ? Kind::Step : Kind::Continue};
  }
  return std::nullopt;
}

}  // namespace

Stub::Reply Stub::can_continue(Arguments /*args*/) { return "vCont;c;C;s;S;t;r"; }

Stub::Reply Stub::continue_each(Arguments args) {
  std::vector<std::optional<Action>> chosen(target_.cpu_count());
  while (!args.done()) {
    Arguments one{args.until(';')};
    const auto action = parse_action(one);
    if (!action) {
      return std::string{kMalformed};
    }
    const bool all = one.done() || one.rest() == ":-1";
    const auto cpu = !all && one.take(":") ? parse_cpu(one) : std::nullopt;
    if (!all && (!cpu || !one.done())) {
      return std::string{kMalformed};
    }
    for (std::size_t i = 0; i < chosen.size(); ++i) {  // the first that names a thread counts
      if ((all || i == *cpu) && !chosen[i]) {
        chosen[i] = action;
      }
    }
  }
  std::vector<Action> actions;
  actions.reserve(chosen.size());
  for (const auto& action : chosen) {
    actions.push_back(action.value_or(Action{.kind = Action::Kind::Stay}));
  }
  say_unsaid();
  awaits_stop_ = true;
  run_.resume(std::move(actions));
  return std::nullopt;
}

Stub::Reply Stub::continue_all(Arguments /*args*/) {
  say_unsaid();
  awaits_stop_ = true;
  run_.resume(std::vector<Action>(target_.cpu_count(), Action{}));
  return std::nullopt;
}

Stub::Reply Stub::step(Arguments /*args*/) {
  std::vector<Action> actions(target_.cpu_count(), Action{.kind = Action::Kind::Stay});
  actions[step_cpu_].kind = Action::Kind::Step;
  say_unsaid();
  awaits_stop_ = true;
  run_.resume(std::move(actions));
  return std::nullopt;
}

Stub::Reply Stub::insert(Arguments args) {
  if (!is_known(args.rest())) {
    return "";
  }
  const auto breakpoint = parse_breakpoint(args);
  if (!breakpoint) {
    return std::string{kMalformed};
  }
  const auto trouble = run_.insert(*breakpoint, cpu_);
  if (!trouble) {
    return "OK";
  }
  if (!shows_errors_ && unsaid_.size() < kMaxUnsaid) {
    unsaid_ += fmt::format("breakpoint refused at {}\n", *trouble);
  }
  return fmt::format("E.{}", *trouble);
}

Stub::Reply Stub::remove(Arguments args) {
  if (!is_known(args.rest())) {
    return "";
  }
  const auto breakpoint = parse_breakpoint(args);
  if (!breakpoint) {
    return std::string{kMalformed};
  }
  run_.remove(*breakpoint);
  return "OK";
}

Stub::Reply Stub::read_all_registers(Arguments /*args*/) {
  const auto* const cpu = run_.read(cpu_);
  return cpu != nullptr ? to_hex(read_registers(*cpu)) : std::string{kNoRegisters};
}

Stub::Reply Stub::write_all_registers(Arguments args) {
  const auto bytes = from_hex(args.rest());
  const auto* const cpu = run_.read(cpu_);
  if (!bytes || cpu == nullptr) {
    return std::string{bytes ? kNoRegisters : kMalformed};
  }
  CpuState state = *cpu;
  CpuParts parts;
  std::string_view rest = *bytes;
  for (std::size_t number = 0; number < register_count(state); ++number) {
    const auto size = size_of_register(number);
    if (rest.size() < size) {
      break;
    }
    static_cast<void>(write_register(state, number, rest.substr(0, size), parts));  // the rest can be written
    rest.remove_prefix(size);
  }
  return run_.write(cpu_, state, parts) ? "OK" : std::string{kNoRegisters};
}

Stub::Reply Stub::read_one_register(Arguments args) {
  const auto number = args.number();
  const auto* const cpu = run_.read(cpu_);
  if (!number || cpu == nullptr || *number >= register_count(*cpu)) {
    return std::string{number ? kNoRegisters : kMalformed};
  }
  return to_hex(read_register(*cpu, static_cast<std::size_t>(*number)));
}

Stub::Reply Stub::write_one_register(Arguments args) {
  const auto number = args.number();
  const auto bytes = args.take("=") ? from_hex(args.rest()) : std::nullopt;
  const auto* const cpu = run_.read(cpu_);
  if (!number || !bytes || cpu == nullptr || *number >= register_count(*cpu)) {
    return std::string{number && bytes ? kNoRegisters : kMalformed};
  }
  CpuState state = *cpu;
  CpuParts parts;
  const bool written = write_register(state, static_cast<std::size_t>(*number), *bytes, parts);
  return written && run_.write(cpu_, state, parts) ? "OK" : std::string{kNoRegisters};
}

/// The memory at "ADDR,LENGTH", as far as it is there: less than was asked for, or nothing.
std::optional<std::string> Stub::read_bytes(Arguments& args) {
  const auto addr = args.number();
  const auto length = args.take(",") ? args.number() : std::nullopt;
  const auto* const cpu = run_.read(cpu_);
  if (!addr || !length || cpu == nullptr) {
    return std::nullopt;
  }
  std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(*length, kMaxPacket / 2)), '\0');
  const auto read = run_.memory().read(*cpu, *addr, std::as_writable_bytes(std::span{bytes}));
  if (read == 0 && *length != 0) {
    return std::nullopt;
  }
  bytes.resize(read);
  return bytes;
}

Stub::Reply Stub::read_memory(Arguments args) {
  const auto bytes = read_bytes(args);
  return bytes ? to_hex(*bytes) : std::string{kNoMemory};
}

Stub::Reply Stub::read_memory_binary(Arguments args) {
  const auto bytes = read_bytes(args);
  return bytes ? fmt::format("b{}", *bytes) : std::string{kNoMemory};
}

Stub::Reply Stub::write_memory(Arguments args) {
  const auto to = args.until(':');
  const auto bytes = from_hex(args.rest());
  return bytes ? write_memory_binary(Arguments{fmt::format("{}:{}", to, *bytes)}) : std::string{kMalformed};
}

Stub::Reply Stub::write_memory_binary(Arguments args) {
  const auto addr = args.number();
  const auto length = args.take(",") ? args.number() : std::nullopt;
  if (!addr || !length || !args.take(":") || *length != args.rest().size()) {
    return std::string{kMalformed};
  }
  const auto* const cpu = run_.read(cpu_);
  const auto bytes = std::as_bytes(std::span{args.rest()});
  return cpu != nullptr && run_.memory().write(*cpu, *addr, bytes) == bytes.size() ? "OK" : std::string{kNoMemory};
}

}  // namespace martlet::gdb
