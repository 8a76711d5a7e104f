#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/device.h"
#include "vmm/debug/trace.h"
#include "vmm/kvm/exit_recorder.h"
#include "vmm/start_clock.h"

namespace martlet {

/// What is remembered of a running machine for --stats, --trace and bundles; only those have one.
class FlightRecorder {
 public:
  struct Options {
    std::size_t exits = 0;  ///< of each vCPU, how many of its last exits are kept; 0: no flight recorder
    bool queues = false;    ///< keep each turn of a virtio queue as well
  };

  explicit FlightRecorder(const Options& options);

  /// Once the buses are frozen.
  void watch_cpus(const Buses& buses, std::size_t cpus);

  [[nodiscard]] ExitRecorder& cpu(std::size_t index) noexcept { return cpus_[index]; }
  /// The device itself, or one that also keeps when its queues had work. The recorder outlives it.
  [[nodiscard]] std::unique_ptr<virtio::VirtioDevice> watched(std::unique_ptr<virtio::VirtioDevice> device);

  // --- Milestones of the boot. On the loop's thread.
  void guest_starts() noexcept { started_ = ExitRecorder::now(); }
  void console_output(std::span<const std::byte> output);

  // --- While no vCPU runs.
  /// For people: each vCPU's exits, how many and how long.
  [[nodiscard]] std::string table() const;
  /// The last `count` exits of each vCPU, for people.
  [[nodiscard]] std::string last_exits(std::size_t count) const;
  void write(TraceFile& file, const StartClock& clock) const;

 private:
  class WatchedDevice;
  struct Turn {
    std::size_t device;  // of devices_
    std::uint16_t queue;
    std::uint64_t begin;
    std::uint64_t took;
  };
  struct Milestone {
    std::string_view name;
    std::uint64_t when;
  };

  Options options_;
  std::vector<ExitRecorder> cpus_;
  std::vector<std::string> devices_;
  std::vector<Turn> turns_;
  std::uint64_t started_ = 0;
  std::vector<Milestone> milestones_;
  std::string line_;  // of the console, as far as it is looked at
  bool at_init_ = false;
};

}  // namespace martlet
