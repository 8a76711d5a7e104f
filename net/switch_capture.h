#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/pcapng.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/fd.h"

namespace martlet {

/// Captures a whole switch as a mirror port would: every frame once, where it enters, be it from a port or from the
/// host. Frames wait for the file in the kernel (packet(7)), which drops and counts them when it takes too long; the
/// switch itself waits for nobody. Ports that come later are not seen.
class SwitchCapture {
 public:
  struct Options {
    std::string name{};
    std::string file{};                   ///< "-": stdout
    std::optional<std::uint16_t> vlan{};  ///< only frames of this one
  };
  /// Throws HostError.
  SwitchCapture(EventLoop& loop, Options options);
  SwitchCapture(const SwitchCapture&) = delete;
  SwitchCapture& operator=(const SwitchCapture&) = delete;
  ~SwitchCapture();

  /// Takes what still waits and says in the file how many frames there were. Throws HostError.
  [[nodiscard]] pcapng::Counts finish();

 private:
  struct Port {
    Fd socket{};
    std::uint32_t interface = 0;  ///< in the file
    bool host = false;            ///< the switch itself: what the host sends
    std::uint64_t captured = 0;
  };
  void add_port(const std::string& name, int index, bool host, std::uint16_t native);
  /// Some of the frames that wait; false when none is left.
  bool take(Port& port);
  void write(const std::vector<std::byte>& bytes);

  EventLoop& loop_;
  Options options_;
  Fd file_;
  std::vector<std::byte> frame_;
  std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace martlet
