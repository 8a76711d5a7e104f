#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/host_stream.h"
#include "devices/serial_port.h"
#include "devices/serial_target.h"
#include "vmm/base/event_loop.h"

namespace martlet {

/// Joins a guest's serial port to a place on the host.
///
/// Output goes guest → inbox → backlog → host. vCPU threads fill the inbox and never wait; the event loop
/// empties it into `observe` and the backlog, and the backlog into the host as fast as that takes it. When
/// nobody does, and the backlog is full, the newest bytes are dropped, and a line in the output tells how
/// many once it flows again. The first byte after quiet wakes the loop, from then on a timer does (the busy
/// phase), until it finds nothing: an idle guest costs nothing, a busy one no system call a byte.
///
/// Input is read only while the guest can take it, so nothing is lost; except from a terminal (`typed` is
/// set), whose keys must be seen even when the guest hangs.
class SerialBackend final : public SerialHost {
 public:
  static constexpr std::size_t kInboxSize = 128U << 10U;
  static constexpr std::size_t kBacklogSize = 256U << 10U;
  static constexpr std::size_t kTypeAheadSize = 4U << 10U;
  static constexpr auto kTick = std::chrono::milliseconds{5};
  /// From so many bytes a tick on, output pours: more than the echo of a key, less than a slow guest prints.
  static constexpr std::size_t kPouring = 16;
  /// After so many ticks without any it has stopped: a kernel that boots pauses between its lines.
  static constexpr int kQuietTicks = 20;

  /// Any may be empty. Called on the loop's thread.
  struct Hooks {
    std::function<void(bool busy)> busy;                      ///< output pours, or does no longer
    std::function<void()> drain;                              ///< at each tick, before the inbox is emptied
    std::function<void(std::span<const std::byte>)> observe;  ///< guest output, whether or not anybody reads it
    std::function<void(std::span<const std::byte>)> typed;    ///< takes the host's input; what is meant for the
                                                              ///< guest it hands to type()
  };

  /// Opens what `target` names, or throws HostError.
  SerialBackend(EventLoop& loop, const SerialTarget& target, Hooks hooks = {});
  ~SerialBackend() override;

  /// Input is for `device`, which outlives the loop's last event. Once, before the loop runs.
  void connect(SerialDevice& device);

  void put(std::byte byte) noexcept override;
  void has_room() noexcept override;

  // --- The loop's thread only.

  /// Bytes for the guest, after those that still wait. Beyond kTypeAheadSize they are dropped, as a terminal does.
  void type(std::span<const std::byte> bytes);
  /// Forgets what waits for the guest, as a BREAK does on a terminal (termios(3), BRKINT).
  void flush_type_ahead() noexcept { waiting_.clear(); }
  /// Looks at the terminal again: we may be its foreground job now (after SIGCONT).
  void resume_input();
  /// Hands all output so far to the host, as far as it takes it now.
  void flush_output() { static_cast<void>(finish(std::chrono::milliseconds{0})); }
  /// At the end, when the guest is gone: the rest of the output, as far as the host takes it within
  /// `patience`. Returns how many bytes nobody took.
  std::size_t finish(std::chrono::milliseconds patience);

  /// The pty's slave, for the user to open; empty for other targets.
  [[nodiscard]] const std::string& pty_path() const noexcept { return pty_.path; }
  /// Why output or input ended early, one line; empty when all is well.
  [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }

 private:
  using Buffer = std::unique_ptr<std::byte[]>;
  struct Inbox {
    Buffer bytes = std::make_unique_for_overwrite<std::byte[]>(kInboxSize);  // touched as far as it was ever filled
    std::size_t count = 0;
    std::size_t lost = 0;
  };

  void woken();
  void tick();
  bool collect();
  void keep(std::span<const std::byte> bytes);
  void send();
  void pump_input();
  void deliver();
  [[nodiscard]] bool in_background() const;
  void watch_input(std::uint32_t events);
  void unwatch_input();
  void unwatch_output();
  void pause_input();
  void end_output(int error);
  void accept_client();
  void client_left();

  EventLoop& loop_;
  Hooks hooks_;
  SerialDevice* device_ = nullptr;
  Fd wake_ = make_eventfd();
  Timer timer_;
  std::atomic<bool> room_ = false;  // has_room() was called

  std::mutex mutex_;
  Inbox inbox_;        // guarded by mutex_
  bool busy_ = false;  // guarded by mutex_: the loop knows that there is output

  Inbox taken_;  // what was the inbox a moment ago; from here on the loop's thread only
  std::vector<std::byte> backlog_;
  std::size_t sent_ = 0;            // of backlog_
  std::size_t lost_ = 0;            // after backlog_
  std::vector<std::byte> waiting_;  // input that the guest has not taken

  std::string name_;
  std::string trouble_;
  Pty pty_;
  std::optional<UnixListener> listener_;
  HostStream input_;
  HostStream output_;
  bool input_watched_ = false;
  bool output_watched_ = false;
  bool ticking_ = false;
  bool pouring_ = false;
  int quiet_ticks_ = 0;          // in a row, while pouring_
  bool job_controlled_ = false;  // the input may be our controlling terminal
};

}  // namespace martlet
