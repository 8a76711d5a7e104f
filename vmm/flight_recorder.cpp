#include "vmm/flight_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/virtio/console_wire.h"

namespace martlet {
namespace {

constexpr std::size_t kMostTurns = std::size_t{1} << 20U;  // 32 MiB
constexpr std::size_t kLongestLine = 256;

// Tracks of a trace.
constexpr int kHostTrack = 0;
constexpr int kFirstCpuTrack = 1;
constexpr int kFirstDeviceTrack = 10'000;

std::string_view name_of(const virtio::VirtioDevice& device) {
  switch (device.id()) {
    case virtio::DeviceId::Net:
      return "net";
    case virtio::DeviceId::Block:
      return "disk";
    case virtio::DeviceId::Console:
      return (device.features() & virtio::kConsoleMultiport) != 0 ? "ports" : "console";
    case virtio::DeviceId::Entropy:
      return "rng";
  }
  return "device";
}

}  // namespace

/// Keeps when a device's queues had work; everything else is the device's.
class FlightRecorder::WatchedDevice final : public virtio::VirtioDevice {
 public:
  WatchedDevice(std::unique_ptr<VirtioDevice> device, std::size_t index, std::vector<Turn>& turns)
      : device_{std::move(device)}, index_{index}, turns_{turns} {}

  [[nodiscard]] virtio::DeviceId id() const noexcept override { return device_->id(); }
  [[nodiscard]] std::uint64_t features() const noexcept override { return device_->features(); }
  [[nodiscard]] std::uint64_t refused_ring_features() const noexcept override {
    return device_->refused_ring_features();
  }
  [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return device_->queue_sizes(); }
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept override {
    device_->read_config(offset, into);
  }
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept override {
    device_->write_config(offset, bytes);
  }
  [[nodiscard]] std::uint32_t config_generation() const noexcept override { return device_->config_generation(); }
  void start(std::uint64_t features, virtio::DriverInterrupts& interrupts) noexcept override {
    device_->start(features, interrupts);
  }
  void start_queue(std::uint16_t index, std::unique_ptr<virtio::VirtQueue> queue, int kick) noexcept override {
    device_->start_queue(index, std::move(queue), kick);
  }
  [[nodiscard]] bool serves_itself(std::uint16_t index) const noexcept override {
    return device_->serves_itself(index);
  }
  void notified(std::uint16_t index) noexcept override {
    const auto begin = ExitRecorder::now();
    device_->notified(index);
    if (turns_.size() < turns_.capacity()) {
      turns_.push_back({.device = index_, .queue = index, .begin = begin, .took = ExitRecorder::now() - begin});
    }
  }
  void stop_queue(std::uint16_t index) noexcept override { device_->stop_queue(index); }
  void stop() noexcept override { device_->stop(); }

 private:
  std::unique_ptr<VirtioDevice> device_;
  std::size_t index_;
  std::vector<Turn>& turns_;
};

FlightRecorder::FlightRecorder(const Options& options) : options_{options} {
  if (options.queues) {
    turns_.reserve(kMostTurns);
  }
}

void FlightRecorder::watch_cpus(const Buses& buses, std::size_t cpus) {
  cpus_.reserve(cpus);
  for (std::size_t i = 0; i < cpus; ++i) {
    cpus_.emplace_back(buses, options_.exits);
  }
}

std::unique_ptr<virtio::VirtioDevice> FlightRecorder::watched(std::unique_ptr<virtio::VirtioDevice> device) {
  if (!options_.queues) {
    return device;
  }
  devices_.push_back(fmt::format("{} {}", name_of(*device), devices_.size()));
  return std::make_unique<WatchedDevice>(std::move(device), devices_.size() - 1, turns_);
}

void FlightRecorder::console_output(std::span<const std::byte> output) {
  if (at_init_) {
    return;
  }
  const auto reached = [&](std::string_view name) {
    if (std::ranges::find(milestones_, name, &Milestone::name) == milestones_.end()) {
      milestones_.push_back({.name = name, .when = ExitRecorder::now()});
    }
  };
  reached("first console byte");
  for (const auto byte : output) {
    const auto character = std::to_integer<char>(byte);
    if (character != '\n') {
      if (line_.size() < kLongestLine) {
        line_ += character;
      }
      continue;
    }
    if (line_.starts_with("[ ")) {
      reached("first printk");
    }
    if (line_.find(" as init process") != std::string::npos) {  // "Run /init as init process"
      reached("init");
      at_init_ = true;
    }
    line_.clear();
  }
}

std::string FlightRecorder::table() const {
  std::string text;
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    const auto cpu = fmt::format("vCPU {}", i);
    text += fmt::format("{:<29} {:>10} {:>10} {:>10} {:>10}\n", cpu, "exits", "p50 us", "p99 us", "max us");
    text += cpus_[i].table();
  }
  return text;
}

std::string FlightRecorder::last_exits(std::size_t count) const {
  std::string text;
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    const auto records = cpus_[i].last();
    text += fmt::format("vCPU {}: {} exits, the last {}:\n", i, cpus_[i].count(), std::min(count, records.size()));
    for (auto j = records.size() - std::min(count, records.size()); j < records.size(); ++j) {
      const auto& record = records[j];
      text +=
          fmt::format("{:>14.6f} s  {:<6} {:<18} {:>#12x}  {} byte  value {:#x}\n",
                      static_cast<double>(record.left - std::min(started_, record.left)) / 1e9,
                      martlet::name_of(record.what), cpus_[i].name_of(record), record.addr, record.size, record.value);
    }
  }
  return text;
}

void FlightRecorder::write(TraceFile& file, const StartClock& clock) const {
  file.set_origin(clock.begin());
  file.name_track(kHostTrack, "start");
  auto begin = clock.begin();
  for (const auto& phase : clock.phases()) {
    file.span(kHostTrack, phase.name, begin, phase.end - begin);
    begin = phase.end;
  }
  file.milestone("first KVM_RUN", started_);
  for (const auto& milestone : milestones_) {
    file.milestone(milestone.name, milestone.when);
  }
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    const int track = kFirstCpuTrack + static_cast<int>(i);
    file.name_track(track, fmt::format("vCPU {}", i));
    for (const auto& record : cpus_[i].last()) {
      file.span(track, cpus_[i].name_of(record), record.left, record.took,
                fmt::format(R"("exit":"{}","address":"{:#x}","value":"{:#x}")", martlet::name_of(record.what),
                            record.addr, record.value));
    }
  }
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    file.name_track(kFirstDeviceTrack + static_cast<int>(i), devices_[i]);
  }
  for (const auto& turn : turns_) {
    file.span(kFirstDeviceTrack + static_cast<int>(turn.device), fmt::format("queue {}", turn.queue), turn.begin,
              turn.took);
  }
}

}  // namespace martlet
