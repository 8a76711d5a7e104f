#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/acpi_power.h"
#include "devices/exec_port.h"
#include "devices/exit_port.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial_backend.h"
#include "devices/uart16550.h"
#include "vmm/base/ending.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/guest_memory.h"
#include "vmm/config.h"
#include "vmm/debug/finding.h"
#include "vmm/debug/vcpu_activity.h"
#include "vmm/exec.h"
#include "vmm/flight_recorder.h"
#include "vmm/input_switch.h"
#include "vmm/kvm/coalesced.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"
#include "vmm/machine_debugger.h"
#include "vmm/standstill.h"
#include "vmm/start_clock.h"
#include "vmm/virtio_devices.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// A whole machine: the only place that knows all its parts. The constructor builds it as `config`
/// says and loads the guest, run() runs it to its end, the destructor takes it apart. HostError when
/// the host or the configuration stands in the way.
class Machine {
 public:
  /// Who sits in front of it. Called on the loop's thread; any may be empty.
  struct FrontEnd {
    /// Takes what is typed on stdin; what is meant for the guest it hands to type().
    std::function<void(std::span<const std::byte>)> typed{};
    /// Sees what a console says, whether or not anybody reads it.
    std::function<void(ConsoleName, std::span<const std::byte>)> said{};
  };

  Machine(const Config& config, StartClock& clock, FrontEnd front_end);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine();

  /// Runs the guest until it ends, on one thread per vCPU; this thread becomes the event loop.
  [[nodiscard]] Ending run();

  /// Ends the VM, from any thread.
  void stop(Ending ending) noexcept { stop_.request(std::move(ending)); }
  /// Presses the ACPI power button.
  void press_power_button() noexcept { acpi_events_.press_power_button(); }

  /// Sends each vCPU an NMI. From any thread.
  void send_nmi();

  /// For timers, signals and whatever else a front end waits for while the guest runs.
  [[nodiscard]] EventLoop& loop() noexcept { return loop_; }

  // --- The terminal. On the loop's thread.
  /// Bytes for whichever console has stdin.
  void type(std::span<const std::byte> bytes);
  /// A BREAK on the serial line; what was typed before it is forgotten.
  void send_break();
  /// We may be the terminal's foreground job again.
  void resume_input();
  /// The terminal has this size now.
  void resize_console(virtio::ConsoleSize size);

  /// The disks' images may have another size now. On the loop's thread.
  void resize_disks() noexcept { virtio_->resize_disks(); }

  /// What people must know before the guest runs, a line each.
  [[nodiscard]] std::vector<std::string> notices();
  /// What went wrong with the consoles, a line each. After run().
  [[nodiscard]] std::vector<std::string> troubles();

  /// Stops all vCPUs, calls `look` and lets those go on that no debugger holds. On the loop's thread, inside run().
  void look(std::function<void()> look);
  /// What each vCPU is about. Inside look().
  [[nodiscard]] std::vector<VcpuSample> sample_cpus() const;
  /// All that is known of each vCPU. Inside look(), or after run().
  [[nodiscard]] std::vector<CpuState> cpu_states() const;
  [[nodiscard]] const GuestMemory& memory() const noexcept { return memory_; }
  /// Where the guest's kernel says its VMCOREINFO is, if its driver qemu_fw_cfg is loaded. It may lie.
  [[nodiscard]] std::optional<GuestRange> vmcoreinfo() const noexcept { return fw_cfg_.vmcoreinfo(); }
  /// A debugger holds vCPUs: what the machine does is not the guest's doing.
  [[nodiscard]] bool held() const { return standstill_->holds_any(); }
  /// The machine as a debugger sees it. Once at most; on the loop's thread.
  [[nodiscard]] MachineDebugger& debugger();
  /// No vCPU begins before a debugger says so. Before run().
  void hold();

  /// Exits and KVM's own counters, for people. After run(), or inside look().
  [[nodiscard]] std::string statistics();
  /// Null unless the configuration asks for one. Its contents: after run(), or inside look().
  [[nodiscard]] const FlightRecorder* recorder() const noexcept { return recorder_.get(); }

 private:
  struct Cpu;

  void send_nmi(std::size_t cpu);
  void attach_devices();
  void attach_virtio(const Config& config);
  void create_cpus(std::uint32_t count);
  static void kick(Cpu& cpu) noexcept;
  static void tell_of_pause(Cpu& cpu) noexcept;
  void pace_transmitter(bool busy);
  void watch_console(ConsoleName console, std::span<const std::byte> output);

  KvmSystem system_;
  GuestMemory memory_;
  Vm vm_;
  StopLine stop_;
  EventLoop loop_;
  std::unique_ptr<FlightRecorder> recorder_;  // null: nobody wants to know
  FrontEnd front_end_;

  SerialBackend serial_;
  IrqLine uart_irq_;
  Uart16550 uart_{uart_irq_, serial_};
  Rtc rtc_;
  I8042 i8042_{stop_};
  AcpiSleep acpi_sleep_{stop_};
  AcpiReset acpi_reset_{stop_};
  IrqLine ged_irq_;
  AcpiEvents acpi_events_{ged_irq_};
  ExitPort exit_port_{stop_};
  IsaDebugExit isa_debug_exit_{stop_};
  ExecPort exec_port_{stop_};
  PvPanic pvpanic_{stop_};
  FwCfg fw_cfg_{memory_};

  Buses buses_;  // frozen once all devices are attached
  std::optional<ExecSession> exec_;
  std::optional<VirtioDevices> virtio_;
  bool hvc_has_stdin_ = false;               // alone
  std::optional<InputSwitch> input_switch_;  // when stdin is for whichever console listens
  std::unique_ptr<CoalescedWrites> coalesced_;
  std::vector<std::unique_ptr<Cpu>> cpus_;
  std::optional<Standstill> standstill_;
  std::optional<MachineDebugger> debugger_;
  std::uint64_t unread_ = 0;
};

}  // namespace martlet
