#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/debug/gdb/packet.h"
#include "vmm/debug/gdb/run_control.h"

namespace martlet::gdb {

/// gdb's remote protocol, all of it but the socket: bytes in, bytes out. Threads are vCPUs, ascending from 1. Holds
/// little, whatever the client sends: while much output waits, or packets wait for the machine to stop, it takes no
/// more input.
class Stub {
 public:
  struct Options {
    std::string version{};                       ///< for `monitor info version`, "Martlet 1.2.3"
    std::function<void()> output_ready = [] {};  ///< there is more output(), or input is taken again
  };

  /// `target` outlives this.
  Stub(DebugTarget& target, Options options);

  void connect();
  void disconnect();

  /// Takes the client's bytes; how many. Offer the rest again after output_ready.
  [[nodiscard]] std::size_t feed(std::string_view bytes);
  /// What is to be sent to the client.
  [[nodiscard]] const std::string& output() const noexcept { return output_; }
  void sent(std::size_t bytes) { output_.erase(0, bytes); }
  /// The client is to be parted from once its output is sent.
  [[nodiscard]] bool done() const noexcept { return done_; }

 private:
  using Reply = std::optional<std::string>;  // nothing: none now, or none ever
  struct Command {
    std::string_view name;  // an exact one, or what it begins with: a single letter, or up to a separator
    Reply (Stub::*perform)(Arguments);
  };
  static const Command kCommands[];

  [[nodiscard]] bool accepts() const noexcept;
  void take(PacketReader::Item item);
  void perform(std::string_view packet);
  void perform_held();
  void send(std::string_view payload);
  void say(std::string_view text);
  void say_unsaid();
  void machine_stopped();

  // Session
  Reply supported(Arguments args);
  Reply no_ack(Arguments args);
  Reply why_stopped(Arguments args);
  Reply attached(Arguments args);
  Reply detach(Arguments args);
  Reply kill(Arguments args);
  Reply kill_politely(Arguments args);
  Reply restart(Arguments args);
  Reply monitor(Arguments args);
  Reply offsets(Arguments args);
  Reply physical_mode(Arguments args);
  Reply set_physical_mode(Arguments args);
  Reply step_bits(Arguments args);
  Reply set_step_bits(Arguments args);
  // Threads
  Reply select(Arguments args);
  Reply is_alive(Arguments args);
  Reply current_thread(Arguments args);
  Reply threads(Arguments args);
  Reply no_more_threads(Arguments args);
  Reply thread_info(Arguments args);
  // Running
  Reply can_continue(Arguments args);
  Reply continue_each(Arguments args);
  Reply continue_all(Arguments args);
  Reply step(Arguments args);
  Reply insert(Arguments args);
  Reply remove(Arguments args);
  // What can be looked at
  Reply read_all_registers(Arguments args);
  Reply write_all_registers(Arguments args);
  Reply read_one_register(Arguments args);
  Reply write_one_register(Arguments args);
  Reply read_memory(Arguments args);
  Reply read_memory_binary(Arguments args);
  Reply write_memory(Arguments args);
  Reply write_memory_binary(Arguments args);
  Reply describe_target(Arguments args);
  Reply describe_memory(Arguments args);

  [[nodiscard]] std::optional<std::string> read_bytes(Arguments& args);
  [[nodiscard]] std::optional<std::size_t> parse_cpu(Arguments& args) const;
  [[nodiscard]] std::optional<std::string> answer(std::string_view command);
  [[nodiscard]] std::optional<std::uint64_t> kernel_text();

  DebugTarget& target_;
  Options options_;
  RunControl run_;
  PacketReader reader_;
  std::deque<std::string> held_;  // packets that came while the machine ran
  std::string output_;
  std::string last_sent_;  // in case the client did not get it
  std::size_t cpu_ = 0;    // which registers and memory are looked at ("Hg")
  std::size_t step_cpu_ = 0;
  std::string unsaid_;  // why a breakpoint was refused, for a client that shows no text of errors
  bool shows_errors_ = false;
  bool acknowledges_ = true;
  bool awaits_stop_ = false;  // the client let the machine go and is to be told when it stops
  bool done_ = false;
};

}  // namespace martlet::gdb
