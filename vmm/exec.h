#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "boot/cpio_files.h"
#include "devices/virtio/console_port_options.h"
#include "devices/virtio/console_ports.h"
#include "vmm/base/ending.h"
#include "vmm/config.h"

namespace martlet {

/// Throws HostError when --exec goes with nothing to run in, or with something that wants the same streams.
void check_exec(const Config& config);

/// "rdinit=…": the kernel's parameter that starts our init.
inline constexpr std::string_view kExecParameter = "rdinit=/.martlet/init";

/// Our init and the command, for the guest's initramfs. It points into `command`.
[[nodiscard]] CpioFiles exec_files(const std::string& command);

/// The ports that the init looks for, before any others: stdin, stdout, stderr, status.
[[nodiscard]] std::vector<virtio::PortOptions> exec_ports();

/// The host's half of --exec: learns over the status port how the command ended, and ends the VM once all that it said
/// is where it belongs, however long that takes its readers. On the event loop's thread.
class ExecSession {
 public:
  explicit ExecSession(StopLine& stop) : stop_{stop} {}
  ExecSession(const ExecSession&) = delete;
  ExecSession& operator=(const ExecSession&) = delete;

  /// For exec_ports(), in their order.
  [[nodiscard]] std::vector<virtio::ConsolePort::Hooks> hooks();
  /// Before the guest runs.
  void connect(virtio::ConsolePorts& ports) noexcept { ports_ = &ports; }
  /// What an ending means when the command has not ended: a guest that goes away by itself has lost it.
  static void amend(Ending& ending);

 private:
  static constexpr std::size_t kLongestStatus = 32;

  void hear(std::span<const std::byte> said);
  void sent(std::size_t stream);

  StopLine& stop_;
  virtio::ConsolePorts* ports_ = nullptr;
  std::string said_;
  std::optional<Ending> ending_;
  std::array<bool, 2> sent_{};  // stdout, stderr
};

/// What the status port says of the command, without its newline: "exit 3", "signal 9". None when it is neither.
[[nodiscard]] std::optional<Ending> parse_exec_status(std::string_view text);

}  // namespace martlet
