#include "vmm/debug/gdb/stub.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace martlet::gdb {
namespace {

constexpr std::size_t kMuchOutput = 4 * kMaxPacket;
constexpr std::size_t kMaxHeld = 16;
constexpr std::string_view kTooLong = "E07";  // E2BIG

bool names(std::string_view name, std::string_view packet) {
  const bool open = name.size() == 1 || name.ends_with(':') || name.ends_with(';') || name.ends_with(',');
  return open ? packet.starts_with(name) : packet == name;
}

}  // namespace

const Stub::Command Stub::kCommands[] = {
    {"qSupported:", &Stub::supported},
    {"qSupported", &Stub::supported},
    {"QStartNoAckMode", &Stub::no_ack},
    {"qXfer:features:read:target.xml:", &Stub::describe_target},
    {"qXfer:memory-map:read::", &Stub::describe_memory},
    {"qAttached", &Stub::attached},
    {"qAttached:", &Stub::attached},
    {"qRcmd,", &Stub::monitor},
    {"qOffsets", &Stub::offsets},
    {"qqemu.PhyMemMode", &Stub::physical_mode},
    {"Qqemu.PhyMemMode:", &Stub::set_physical_mode},
    {"qqemu.sstepbits", &Stub::step_bits},
    {"Qqemu.sstep:", &Stub::set_step_bits},
    {"qC", &Stub::current_thread},
    {"qfThreadInfo", &Stub::threads},
    {"qsThreadInfo", &Stub::no_more_threads},
    {"qThreadExtraInfo,", &Stub::thread_info},
    {"vCont?", &Stub::can_continue},
    {"vCont;", &Stub::continue_each},
    {"vKill;", &Stub::kill_politely},
    {"?", &Stub::why_stopped},
    {"D", &Stub::detach},
    {"k", &Stub::kill},
    {"R", &Stub::restart},
    {"H", &Stub::select},
    {"T", &Stub::is_alive},
    {"c", &Stub::continue_all},
    {"s", &Stub::step},
    {"Z", &Stub::insert},
    {"z", &Stub::remove},
    {"g", &Stub::read_all_registers},
    {"G", &Stub::write_all_registers},
    {"p", &Stub::read_one_register},
    {"P", &Stub::write_one_register},
    {"m", &Stub::read_memory},
    {"M", &Stub::write_memory},
    {"x", &Stub::read_memory_binary},
    {"X", &Stub::write_memory_binary},
};

Stub::Stub(DebugTarget& target, Options options)
    : target_{target},
      options_{std::move(options)},
      run_{target, {.stopped = [this] { machine_stopped(); }, .say = [this](std::string_view text) { say(text); }}} {}

void Stub::connect() {
  reader_ = {};
  held_.clear();
  output_.clear();
  last_sent_.clear();
  cpu_ = step_cpu_ = 0;
  acknowledges_ = true;
  awaits_stop_ = done_ = shows_errors_ = false;
  unsaid_.clear();
  run_.block_interrupts(true);
  run_.name_breakpoints(false);
  run_.attach();
}

void Stub::disconnect() {
  awaits_stop_ = false;
  held_.clear();
  output_.clear();
  if (!done_) {
    run_.leave();
  }
}

bool Stub::accepts() const noexcept { return output_.size() < kMuchOutput && held_.size() < kMaxHeld && !done_; }

std::size_t Stub::feed(std::string_view bytes) {
  perform_held();
  std::string_view rest = bytes;
  while (accepts() && !rest.empty()) {
    if (auto item = reader_.next(rest)) {
      take(std::move(*item));
    }
  }
  return bytes.size() - rest.size();
}

void Stub::take(PacketReader::Item item) {
  using Kind = PacketReader::Kind;
  switch (item.kind) {
    case Kind::Ack:
      return;
    case Kind::Nak:
      output_ += acknowledges_ ? last_sent_ : "";
      return;
    case Kind::Interrupt:
      run_.interrupt();
      return;
    case Kind::Damaged:
      output_ += acknowledges_ ? "-" : "";
      return;
    case Kind::TooLong:
      output_ += acknowledges_ ? "+" : "";
      send(kTooLong);
      return;
    case Kind::Packet:
      output_ += acknowledges_ ? "+" : "";
      held_.push_back(std::move(item.payload));
      perform_held();
      return;
  }
}

void Stub::perform_held() {
  while (run_.at_rest() && !held_.empty() && !done_ && output_.size() < kMuchOutput) {
    const auto packet = std::move(held_.front());
    held_.pop_front();
    perform(packet);
  }
}

void Stub::perform(std::string_view packet) {
  for (const auto& command : kCommands) {
    if (names(command.name, packet)) {
      if (const auto reply = (this->*command.perform)(Arguments{packet.substr(command.name.size())})) {
        send(*reply);
      }
      return;
    }
  }
  send("");  // gdb's sign for "what is that?"
}

void Stub::send(std::string_view payload) {
  last_sent_ = frame(payload);
  output_ += last_sent_;
}

/// Console output, which gdb expects while the machine runs and from monitor commands.
void Stub::say(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(std::min(text.size(), kMaxPacket / 4))) {
    send(fmt::format("O{}", to_hex(text.substr(0, kMaxPacket / 4))));
  }
}

void Stub::say_unsaid() { say(std::exchange(unsaid_, {})); }

void Stub::machine_stopped() {
  if (!run_.ended()) {
    cpu_ = step_cpu_ = run_.stopped_cpu();
  }
  if (std::exchange(awaits_stop_, false)) {
    send(run_.stop_reply());
  }
  options_.output_ready();
}

}  // namespace martlet::gdb
