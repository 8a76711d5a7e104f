#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/pci/host.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/console_ports.h"
#include "devices/virtio/device.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/guest_memory.h"
#include "vmm/config.h"
#include "vmm/flight_recorder.h"
#include "vmm/kvm/exit.h"
#include "vmm/kvm_wires.h"

namespace martlet {

/// A machine's virtio devices, in the order disks, network cards, console, named ports, entropy, and the bus they are
/// on: PCI, or the MMIO slots that layout::virtio_mmio() counts. Files and network interfaces are opened here.
class VirtioDevices {
 public:
  /// All outlive it, the console's hooks included.
  struct Host {
    const GuestMemory& memory;
    EventLoop& loop;
    Vm& vm;
    Buses& buses;  ///< not yet frozen
    KvmTrouble trouble;
    virtio::ConsolePort::Hooks console;
    std::vector<virtio::ConsolePort::Hooks> exec;  ///< of exec_ports()
    FlightRecorder* recorder = nullptr;            ///< null: nobody wants to know
  };
  /// Throws HostError.
  VirtioDevices(const Config& config, const Host& host);

  /// Null when there is none.
  [[nodiscard]] virtio::Console* console() noexcept { return console_; }
  /// Null when there are none.
  [[nodiscard]] virtio::ConsolePorts* ports() noexcept { return ports_; }
  /// Before the guest runs: what only may change on the host when nothing stands against that any more. Throws
  /// HostError.
  void begin();
  /// Looks how large the disks' images are now, and tells the guest. On the event loop's thread.
  void resize_disks() noexcept;

  /// At the end, when the guest is gone: console and ports let readers take the rest of the output, each for as long as
  /// `patience`. Returns how many bytes of the console's nobody took.
  [[nodiscard]] std::uint64_t finish(std::chrono::milliseconds patience) noexcept;
  /// What people must know of console and ports, a line each: where ptys are …
  [[nodiscard]] std::vector<std::string> ptys() const;
  /// … and, after finish(), what went wrong, or was lost of a port's.
  [[nodiscard]] std::vector<std::string> troubles() const;

 private:
  void create(const Config& config, const Host& host);
  void plug_into_pci(const Host& host);
  void plug_into_mmio(const Host& host);

  KvmMsiRouter msi_;
  KvmDoorbells doorbells_;
  std::vector<std::unique_ptr<virtio::VirtioDevice>> devices_;
  virtio::Console* console_ = nullptr;
  virtio::ConsolePorts* ports_ = nullptr;
  std::vector<virtio::Block*> disks_;

  // One or the other.
  std::unique_ptr<PciHost> pci_;
  std::vector<std::unique_ptr<virtio::VirtioPci>> functions_;
  std::vector<std::unique_ptr<IrqLine>> lines_;
  std::vector<std::unique_ptr<virtio::VirtioMmio>> slots_;
};

}  // namespace martlet
