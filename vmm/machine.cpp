#include "vmm/machine.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "boot/acpi.h"
#include "vmm/base/error.h"
#include "vmm/guest_image.h"
#include "vmm/kvm/statistics.h"
#include "vmm/kvm/vcpu_thread.h"
#include "vmm/units.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/entry.h"
#include "vmm/x86_64/int3_probe.h"
#include "vmm/x86_64/irq_routes.h"
#include "vmm/x86_64/layout.h"
#include "vmm/x86_64/platform.h"
#include "vmm/x86_64/ram.h"
#include "vmm/x86_64/vcpu_registers.h"

namespace martlet {
namespace {

// What the DSDT and FADT promise is what the devices do.
static_assert(kAcpiS5SleepType == kAcpiSleepTypeOff);
static_assert(kAcpiPowerButtonEvent == static_cast<std::uint8_t>(AcpiEvent::PowerButton));

constexpr std::uint64_t kSmallestMemory = 2 * layout::kMiB;
constexpr auto kPatience = std::chrono::seconds{1};  // with whoever reads the guest's last words

/// RAM and swap of this host, in bytes.
std::uint64_t host_memory() {
  std::uint64_t swap = 0;
  struct sysinfo info {};
  if (::sysinfo(&info) == 0) {
    swap = std::uint64_t{info.totalswap} * info.mem_unit;
  }
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) +
         swap;
}

std::vector<GuestRange> checked_ram_ranges(std::uint64_t size) {
  if (size < kSmallestMemory) {
    throw HostError{fmt::format("--memory: {} is too little; no kernel starts in less than {}", format_size(size),
                                format_size(kSmallestMemory))};
  }
  if (size % layout::kMiB != 0) {
    throw HostError{fmt::format("--memory: {} bytes is no whole number of MiB", size)};
  }
  if (const auto host = host_memory(); size > host) {
    throw HostError{fmt::format("--memory: {} is more than this host has ({} of RAM and swap)", format_size(size),
                                format_size(host))};
  }
  return ram_ranges(size);
}

std::uint32_t checked_cpus(std::uint32_t cpus, const KvmSystem& system) {
  const auto most = static_cast<std::uint32_t>(std::max(1, system.extension(KVM_CAP_MAX_VCPUS)));
  if (cpus == 0 || cpus > most) {
    throw HostError{fmt::format("--cpus {}: this host's KVM allows 1 to {}", cpus, most)};
  }
  return cpus;
}

}  // namespace

struct Machine::Cpu {
  Cpu(const KvmSystem& system, const Vm& vm, int index, const Buses& buses)
      : vcpu{system, vm, index}, dispatcher{buses} {}

  Vcpu vcpu;
  Dispatcher dispatcher;
  std::optional<VcpuThread> thread;
};

Machine::Machine(const Config& config, StartClock& clock, FrontEnd front_end)
    : memory_{checked_ram_ranges(config.memory), config.backing},
      vm_{system_},
      recorder_{config.recorded_exits == 0 ? nullptr
                                           : std::make_unique<FlightRecorder>(FlightRecorder::Options{
                                                 .exits = config.recorded_exits, .queues = config.recorded_queues})},
      front_end_{std::move(front_end)},
      serial_{loop_,
              config.serial,
              {.busy = [this](bool busy) { pace_transmitter(busy); },
               .drain = [this] { coalesced_->drain(); },
               .observe = [this](std::span<const std::byte> output) { watch_console(ConsoleName::Serial, output); },
               .typed = config.serial.kind == SerialTarget::Kind::Stdio ? front_end_.typed : nullptr}} {
  const auto cpus = checked_cpus(config.cpus, system_);
  if (config.exec) {
    check_exec(config);
    exec_.emplace(stop_);
  }
  clock.mark("open KVM and files");
  const auto kernel = load_guest(memory_, config, clock);
  vm_.map(memory_);
  create_interrupt_controllers(system_, vm_, cpus);
  attach_devices();
  attach_virtio(config);
  buses_.ports.freeze();
  buses_.mmio.freeze();
  clock.mark("KVM: memory, interrupts, devices");
  if (recorder_) {
    recorder_->watch_cpus(buses_, cpus);
  }
  create_cpus(cpus);
  if (kernel.mode == EntryMode::Linux64) {
    enter_linux64(cpus_.front()->vcpu, memory_, kernel.entry);
  } else {
    enter_pvh(cpus_.front()->vcpu, memory_, kernel.entry);
  }
  std::vector<Brake*> brakes;
  std::ranges::transform(cpus_, std::back_inserter(brakes), [](const auto& cpu) { return &cpu->vcpu.brake(); });
  standstill_.emplace(loop_, brakes,
                      Standstill::Hooks{.kick = [this](std::size_t cpu) { kick(*cpus_[cpu]); },
                                        .releasing = [this](std::size_t cpu) { tell_of_pause(*cpus_[cpu]); }});
  clock.mark("KVM: vCPUs");
}

Machine::~Machine() {
  virtio_.reset();  // first, while what its hooks call is still there
}

void Machine::attach_devices() {
  const auto ports = [this](layout::PortRange range, std::string_view name, BusDevice& device) {
    buses_.ports.insert(range.start, range.size, name, device);
  };
  ports(layout::kCom1, "uart", uart_);
  ports(layout::kI8042Command, "i8042", i8042_);
  ports(layout::kRtc, "rtc", rtc_);
  ports(layout::kIsaDebugExit, "isa-debug-exit", isa_debug_exit_);
  ports(layout::kExitPort, "exit port", exit_port_);
  if (exec_) {
    ports(layout::kExecPort, "exec port", exec_port_);
  }
  ports(layout::kPvpanic, "pvpanic", pvpanic_);
  ports(layout::kFwCfg, "fw_cfg", fw_cfg_);
  ports(layout::kAcpiSleep, "acpi sleep", acpi_sleep_);
  ports(layout::kAcpiReset, "acpi reset", acpi_reset_);
  ports(layout::kAcpiEvents, "acpi events", acpi_events_);
  vm_.connect(uart_irq_, layout::kCom1Irq);
  vm_.connect(ged_irq_, layout::kGedIrq);
}

/// With both consoles on stdio, the serial one reads stdin for both: input is for hvc0 once the guest listens
/// there.
void Machine::attach_virtio(const Config& config) {
  const auto is_stdio = [](const SerialTarget& target) { return target.kind == SerialTarget::Kind::Stdio; };
  const bool hvc_on_stdio = config.console && is_stdio(*config.console);
  const bool shared = hvc_on_stdio && is_stdio(config.serial);
  virtio::ConsolePort::Hooks hooks{.observe = [this, shared](std::span<const std::byte> output) {
    if (shared) {
      serial_.flush_output();  // what was said before comes before
    }
    watch_console(ConsoleName::Hvc, output);
  }};
  if (shared) {
    hooks.opened = [this](bool) { serial_.has_room(); };
    hooks.has_room = [this] { serial_.has_room(); };
  } else if (hvc_on_stdio) {
    hooks.typed = front_end_.typed;
  }
  virtio_.emplace(
      config, VirtioDevices::Host{.memory = memory_,
                                  .loop = loop_,
                                  .vm = vm_,
                                  .buses = buses_,
                                  .trouble =
                                      [this](std::string_view what) {
                                        stop_.request({.kind = Ending::Kind::HostError, .detail = std::string{what}});
                                      },
                                  .console = std::move(hooks),
                                  .exec = exec_ ? exec_->hooks() : std::vector<virtio::ConsolePort::Hooks>{},
                                  .recorder = recorder_.get()});
  if (exec_) {
    exec_->connect(*virtio_->ports());
  }
  if (shared) {
    input_switch_.emplace(virtio_->console()->port(), uart_);
    serial_.connect(*input_switch_);
  } else {
    serial_.connect(uart_);
    hvc_has_stdin_ = hvc_on_stdio;
  }
}

void Machine::create_cpus(std::uint32_t count) {
  const auto supported = supported_cpuid(system_);
  const bool tsc_deadline = system_.extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  coalesced_ = std::make_unique<CoalescedWrites>(vm_.fd(), buses_);
  for (std::uint32_t id = 0; id < count; ++id) {
    const auto& cpu = cpus_.emplace_back(std::make_unique<Cpu>(system_, vm_, static_cast<int>(id), buses_));
    prepare_vcpu(cpu->vcpu, make_cpuid(supported, {.apic_id = id, .cpus = count, .tsc_deadline = tsc_deadline}));
  }
  if (const int page = system_.extension(KVM_CAP_COALESCED_MMIO);
      page > 0 && system_.extension(KVM_CAP_COALESCED_PIO) > 0) {
    coalesced_->attach(cpus_.front()->vcpu.shared(), page);
    // Nobody waits for the address of a configuration access: the access itself exits. Not needed, if KVM refuses.
    static_cast<void>(coalesced_->coalesce(layout::kPciConfigAddress.start, layout::kPciConfigAddress.size, true));
  }
}

/// While output flows, KVM puts the UART's transmitted bytes aside (docs/architecture.md, "The transmit port").
void Machine::pace_transmitter(bool busy) {
  coalesced_->coalesce(layout::kCom1.start, 1, busy);
  if (!busy) {
    coalesced_->drain();  // what came before KVM stopped
  }
}

void Machine::watch_console(ConsoleName console, std::span<const std::byte> output) {
  if (recorder_) {
    recorder_->console_output(output);
  }
  if (front_end_.said) {
    front_end_.said(console, output);
  }
}

void Machine::send_nmi() {
  for (std::size_t cpu = 0; cpu < cpus_.size(); ++cpu) {
    send_nmi(cpu);
  }
}

void Machine::send_nmi(std::size_t cpu) { vm_.send(nmi_message(static_cast<std::uint32_t>(cpus_[cpu]->vcpu.index()))); }

void Machine::type(std::span<const std::byte> bytes) {
  if (hvc_has_stdin_) {
    virtio_->console()->port().type(bytes);
  } else {
    serial_.type(bytes);
  }
}

void Machine::send_break() {
  serial_.flush_type_ahead();
  if (hvc_has_stdin_) {
    virtio_->console()->port().flush_type_ahead();
  }
  uart_.receive_break();
}

void Machine::resume_input() {
  if (hvc_has_stdin_) {
    virtio_->console()->port().resume_input();
  } else {
    serial_.resume_input();
  }
}

void Machine::resize_console(virtio::ConsoleSize size) {
  if (virtio_->console() != nullptr) {
    virtio_->console()->resize(size);
  }
}

std::vector<std::string> Machine::notices() {
  std::vector<std::string> lines;
  if (!serial_.pty_path().empty()) {
    lines.push_back("the serial console is " + serial_.pty_path());
  }
  std::ranges::move(virtio_->ptys(), std::back_inserter(lines));
  return lines;
}

std::vector<std::string> Machine::troubles() {
  std::vector<std::string> lines;
  if (!serial_.trouble().empty()) {
    lines.push_back(serial_.trouble());
  }
  if (unread_ != 0) {
    lines.push_back(fmt::format("{} bytes of console output lost: nobody read them", unread_));
  }
  std::ranges::move(virtio_->troubles(), std::back_inserter(lines));
  return lines;
}

namespace {

/// By how much the event loop's thread is nicer than the vCPUs'. Where they share a CPU and weigh the same, the loop,
/// which needs less of it, would be let in at every kick, and nothing would ever come in batches: at depth 32 each
/// request had an interrupt and three system calls of its own. A vCPU that spins for a device is not favoured: it has
/// soon used so much more that the loop is let in at once.
constexpr int kNicer = 5;

}  // namespace

Ending Machine::run() {
  loop_.watch(stop_.fd(), EPOLLIN, [this](std::uint32_t) { loop_.stop(); });
  if (recorder_) {
    recorder_->guest_starts();
  }
  try {
    virtio_->begin();
    for (auto& cpu : cpus_) {
      auto* const recorder = recorder_ ? &recorder_->cpu(static_cast<std::size_t>(cpu->vcpu.index())) : nullptr;
      cpu->thread.emplace(cpu->vcpu, [this, cpu = cpu.get(), recorder] {
        cpu->vcpu.run(cpu->dispatcher, *coalesced_, stop_, recorder);
      });
    }
    static_cast<void>(::nice(kNicer));  // this thread, on Linux
    loop_.run();
  } catch (const HostError& error) {  // the host failed us in mid-run: the vCPUs stop all the same
    stop_.request({.kind = Ending::Kind::HostError, .detail = error.what()});
  }
  for (auto& cpu : cpus_) {
    if (cpu->thread) {
      cpu->thread->kick();
    }
    cpu->vcpu.brake().release();  // whoever rests goes on, to his end
  }
  for (auto& cpu : cpus_) {
    cpu->thread.reset();  // joins
  }
  coalesced_->drain();
  unread_ = serial_.finish(kPatience) + virtio_->finish(kPatience);
  auto ending = *stop_.ending();
  if (exec_) {
    ExecSession::amend(ending);
  }
  return ending;
}

/// Before its thread has begun, its first entry is where it will look around.
void Machine::kick(Cpu& cpu) noexcept {
  if (cpu.thread) {
    cpu.thread->kick();
  } else {
    cpu.vcpu.set_immediate_exit();
  }
}

/// The guest's watchdogs are told that time was taken from it. A guest without kvm-clock has nothing to tell: EINVAL.
void Machine::tell_of_pause(Cpu& cpu) noexcept { static_cast<void>(::ioctl(cpu.vcpu.fd(), KVM_KVMCLOCK_CTRL, 0)); }

void Machine::look(std::function<void()> look) { standstill_->look(std::move(look)); }

std::vector<CpuState> Machine::cpu_states() const {
  std::vector<CpuState> states;
  states.reserve(cpus_.size());
  for (const auto& cpu : cpus_) {
    states.push_back(read_cpu_state(cpu->vcpu).value_or(CpuState{}));
  }
  return states;
}

void Machine::hold() {
  standstill_->hold([] {});
}

MachineDebugger& Machine::debugger() {
  std::vector<Vcpu*> cpus;
  std::ranges::transform(cpus_, std::back_inserter(cpus), [](const auto& cpu) { return &cpu->vcpu; });
  debugger_.emplace(MachineDebugger::Wiring{.standstill = *standstill_,
                                            .cpus = std::move(cpus),
                                            .memory = memory_,
                                            .buses = buses_,
                                            .stop = stop_,
                                            .loop = loop_,
                                            .int3_exits = int3_exits(system_),
                                            .blocks_interrupts = blocks_interrupts(system_),
                                            .send_nmi = [this](std::size_t cpu) { send_nmi(cpu); }});
  return *debugger_;
}

std::vector<VcpuSample> Machine::sample_cpus() const {
  std::vector<VcpuSample> samples;
  for (const auto& cpu : cpus_) {
    const auto& counts = cpu->dispatcher.counts();
    samples.push_back(sample_vcpu(cpu->vcpu.fd()));
    samples.back().exits = counts.exits - counts.interrupted;
  }
  return samples;
}

std::string Machine::statistics() {
  std::uint64_t exits = 0;
  std::uint64_t interrupted = 0;
  for (auto& cpu : cpus_) {
    exits += cpu->dispatcher.counts().exits;
    interrupted += cpu->dispatcher.counts().interrupted;
  }
  std::string text = fmt::format("exits to user space: {}, of which {} were kicks\n", exits, interrupted);
  const auto add = [&](const Bus& bus, std::vector<std::uint64_t> ExitCounts::*counts, std::string_view rest) {
    for (std::size_t i = 0; i <= bus.entries().size(); ++i) {
      std::uint64_t count = 0;
      for (auto& cpu : cpus_) {
        count += (cpu->dispatcher.counts().*counts)[i];
      }
      const std::uint64_t put_aside = (coalesced_->counts().*counts)[i];
      if (count != 0 || put_aside != 0) {
        text += fmt::format("  {:<16} {:>10} exits", i < bus.entries().size() ? bus.entries()[i].name : rest, count);
        text += put_aside != 0 ? fmt::format(", {} more writes without one\n", put_aside) : "\n";
      }
    }
  };
  add(buses_.ports, &ExitCounts::ports, "other ports");
  add(buses_.mmio, &ExitCounts::mmio, "other MMIO");
  if (recorder_) {
    text += "time in user space, by exit:\n" + recorder_->table();
  }
  text += "KVM's counters:\n";
  std::vector<KvmCounter> totals = read_kvm_counters(vm_.fd());
  for (auto& cpu : cpus_) {
    for (auto& counter : read_kvm_counters(cpu->vcpu.fd())) {
      const auto same = std::ranges::find(totals, counter.name, &KvmCounter::name);
      if (same == totals.end()) {
        totals.push_back(std::move(counter));
      } else {
        same->value += counter.value;
      }
    }
  }
  for (const auto& counter : totals) {
    if (counter.value != 0) {
      text += fmt::format("  {:<32} {:>12}\n", counter.name, counter.value);
    }
  }
  return text;
}

}  // namespace martlet
