#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "devices/byte_queue.h"
#include "devices/host_port.h"
#include "devices/serial_port.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/queue.h"
#include "vmm/base/event_loop.h"

namespace martlet::virtio {

/// A console, or a named port: two queues of the guest's, and a place on the host.
///
/// Output goes from the guest's buffers to the host by writev(2), without a copy, while the host takes it. What
/// it does not take, waits:
///  - A console's rest is put aside, up to kBacklogSize, and its chain given back: Linux' hvc spins for that,
///    interrupts off. Only with the backlog full the chain is held, and a guest vCPU with it: to the reader's
///    pace, so nothing is lost to one that is slow. One that takes not a byte for kConsolePatience is nobody.
///    That is well below the 20 s after which Linux calls a CPU locked up.
///  - A stream's chain (a named port's) is held until its reader took it: there only the guest's writer waits.
///    Nothing is ever put aside for a reader that may leave with it unread.
///  - Where nobody reads, output is put aside for whoever comes, and what does not fit is dropped, the newest
///    first, and counted; a console's next reader finds a line that tells. Nobody: no client of the socket, or
///    a reader that ran out of patience. A pty does not tell whether anybody has opened it, so it gets less of
///    it, kPtyPatience, in either role.
/// A stream's client that leaves takes the rest of the chain with it that it had begun to read.
///
/// Input is read only while the guest has opened the port and has buffers for it, straight into them. Else it
/// stays where it is; of a client that left meanwhile kTypeAheadSize is kept, so that the next one has its turn,
/// or nothing while the guest has not opened the port.
///
/// On the event loop's thread only.
class ConsolePort final : public SerialDevice {
 public:
  static constexpr std::size_t kBacklogSize = 1U << 20U;
  static constexpr std::size_t kTypeAheadSize = 4U << 10U;
  static constexpr auto kConsolePatience = std::chrono::milliseconds{5000};
  static constexpr auto kPtyPatience = std::chrono::milliseconds{1000};

  enum class Role { Console, Stream };
  /// Any may be empty.
  struct Hooks {
    std::function<void(std::span<const std::byte>)> observe{};  ///< output, before it goes anywhere, read or not
    std::function<void(bool open)> opened{};                    ///< the guest takes input, or does no longer
    std::function<void(std::span<const std::byte>)> typed{};    ///< takes the host's input, as soon as it comes;
                                                                ///< what is meant for the guest goes to type()
    std::function<void()> has_room{};  ///< set if input comes by receive() only, from somebody else's hands: a
                                       ///< receive() that took less than all may be tried again
    std::function<void(bool connected)> connected{};  ///< somebody is there on the host, or no longer
    std::function<void()> sent{};                     ///< of what the guest has said, nothing waits any more
  };

  /// Throws HostError when `target` cannot be opened.
  ConsolePort(EventLoop& loop, const SerialTarget& target, Role role, Hooks hooks);

  // --- The guest's side

  void start_receive(std::unique_ptr<VirtQueue> queue, int kick) noexcept;
  void start_transmit(std::unique_ptr<VirtQueue> queue, int kick) noexcept;
  void receive_kicked() noexcept { pump_input(); }
  void transmit_kicked() noexcept { transmit(); }
  void stop_receive() noexcept;
  void stop_transmit() noexcept;
  /// The guest takes input from now on, or does no longer.
  void set_open(bool open) noexcept;
  [[nodiscard]] bool open() const noexcept { return open_; }
  /// Output that did not come through the queue.
  void put(std::span<const std::byte> bytes) noexcept;

  // --- The host's side

  [[nodiscard]] const HostPort& host() const noexcept { return host_; }
  /// Input, into what buffers the guest has. While it is not open it has none.
  [[nodiscard]] std::size_t room() noexcept override;
  [[nodiscard]] std::size_t receive(std::span<const std::byte> bytes) noexcept override;
  /// Bytes for the guest, after those that still wait. Beyond kTypeAheadSize they are dropped, as a terminal does.
  void type(std::span<const std::byte> bytes) noexcept;
  /// Forgets what waits for the guest, as a BREAK does on a terminal (termios(3), BRKINT).
  void flush_type_ahead() noexcept { typed_.clear(); }
  /// Looks at the terminal again: we may be its foreground job now (after SIGCONT).
  void resume_input() noexcept { pump_input(); }
  /// At the end, when the guest is gone: the rest of the output, as far as the host takes it within `patience`.
  /// Returns how many bytes nobody took, ever.
  [[nodiscard]] std::uint64_t finish(std::chrono::milliseconds patience) noexcept;

 private:
  enum class Reader { Takes, Slow, Gone };
  enum class Destination { None, Guest, TypeAhead, Owner };
  struct Side {
    std::unique_ptr<VirtQueue> queue;
    int kick = -1;
  };

  /// Output that the guest has not got back yet.
  struct Held {
    explicit Held(DescriptorChain&& taken) noexcept : chain{std::move(taken)}, rest{chain}, unseen{rest} {}

    DescriptorChain chain;
    ChainReader rest;    // what is still to go
    ChainReader unseen;  // by the observer
    bool begun = false;  // the host has some of it
  };

  bool transmit() noexcept;
  [[nodiscard]] bool send_held(std::size_t& budget) noexcept;
  [[nodiscard]] Reader send_backlog() noexcept;
  [[nodiscard]] Reader judge(std::ptrdiff_t written) noexcept;
  [[nodiscard]] std::size_t put_aside(std::size_t window) noexcept;
  void observe(std::size_t window) noexcept;
  void wait_for_reader() noexcept;
  void stop_waiting() noexcept;
  void lose(std::uint64_t bytes) noexcept;
  void reader_changed(bool connected) noexcept;
  void tell_of_end() noexcept;
  void pump_input() noexcept;
  [[nodiscard]] Destination next_destination() noexcept;
  void deliver_typed() noexcept;
  [[nodiscard]] bool find_buffer() noexcept;
  void give_back(std::size_t written) noexcept;

  Role role_;
  Hooks hooks_;
  std::optional<std::chrono::milliseconds> patience_;  // none: for ever
  Side receive_;
  Side transmit_;

  std::optional<Held> held_;
  ByteQueue backlog_{kBacklogSize};
  std::uint64_t lost_ = 0;  // after backlog_
  std::uint64_t lost_ever_ = 0;
  bool waiting_ = false;  // the timer runs
  bool unread_ = false;   // it ran out

  std::optional<DescriptorChain> buffer_;  // for input
  ByteQueue typed_{kTypeAheadSize};
  bool open_ = false;
  bool refused_ = false;  // somebody waits for has_room
  bool end_told_ = false;

  HostPort host_;
  std::optional<Timer> timer_;
};

}  // namespace martlet::virtio
