#include "vmm/machine.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
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
#include "vmm/x86_64/layout.h"
#include "vmm/x86_64/platform.h"
#include "vmm/x86_64/ram.h"

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

Machine::Machine(const Config& config, StartClock& clock, std::function<void(std::span<const std::byte>)> typed)
    : memory_{checked_ram_ranges(config.memory), config.backing},
      vm_{system_},
      serial_{loop_,
              config.serial,
              {.busy = [this](bool busy) { pace_transmitter(busy); },
               .drain = [this] { coalesced_->drain(); },
               .observe = [this](std::span<const std::byte> output) { watch_console(output); },
               .typed = std::move(typed)}} {
  serial_.connect(uart_);
  const auto cpus = checked_cpus(config.cpus, system_);
  clock.mark("open KVM and files");
  const auto kernel = load_guest(memory_, config, clock);
  vm_.map(memory_);
  create_interrupt_controllers(system_, vm_, cpus);
  attach_devices();
  clock.mark("KVM: memory, interrupts, devices");
  create_cpus(cpus);
  if (kernel.mode == EntryMode::Linux64) {
    enter_linux64(cpus_.front()->vcpu, memory_, kernel.entry);
  } else {
    enter_pvh(cpus_.front()->vcpu, memory_, kernel.entry);
  }
  clock.mark("KVM: vCPUs");
}

Machine::~Machine() = default;

void Machine::attach_devices() {
  const auto ports = [this](layout::PortRange range, std::string_view name, BusDevice& device) {
    buses_.ports.insert(range.start, range.size, name, device);
  };
  ports(layout::kCom1, "uart", uart_);
  ports(layout::kI8042Command, "i8042", i8042_);
  ports(layout::kRtc, "rtc", rtc_);
  ports(layout::kIsaDebugExit, "isa-debug-exit", isa_debug_exit_);
  ports(layout::kExitPort, "exit port", exit_port_);
  ports(layout::kPvpanic, "pvpanic", pvpanic_);
  ports(layout::kAcpiSleep, "acpi sleep", acpi_sleep_);
  ports(layout::kAcpiReset, "acpi reset", acpi_reset_);
  ports(layout::kAcpiEvents, "acpi events", acpi_events_);
  vm_.connect(uart_irq_, layout::kCom1Irq);
  vm_.connect(ged_irq_, layout::kGedIrq);
  buses_.ports.freeze();
  buses_.mmio.freeze();
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
  }
}

/// While output flows, KVM puts the UART's transmitted bytes aside (docs/architecture.md, "The transmit port").
void Machine::pace_transmitter(bool busy) {
  coalesced_->coalesce(layout::kCom1.start, busy);
  if (!busy) {
    coalesced_->drain();  // what came before KVM stopped
  }
}

void Machine::watch_console(std::span<const std::byte> output) {
  console_watch_.feed(output);
  if (console_watch_.panic_is_over()) {  // without a reset to follow: panic=0
    stop_.request({.kind = Ending::Kind::Panic, .detail = *console_watch_.panic()});
  }
}

Ending Machine::run() {
  loop_.watch(stop_.fd(), EPOLLIN, [this](std::uint32_t) { loop_.stop(); });
  try {
    for (auto& cpu : cpus_) {
      cpu->thread.emplace(cpu->vcpu, [this, cpu = cpu.get()] { cpu->vcpu.run(cpu->dispatcher, *coalesced_, stop_); });
    }
    loop_.run();
  } catch (const HostError& error) {  // the host failed us in mid-run: the vCPUs stop all the same
    stop_.request({.kind = Ending::Kind::HostError, .detail = error.what()});
  }
  for (auto& cpu : cpus_) {
    if (cpu->thread) {
      cpu->thread->kick();
    }
  }
  for (auto& cpu : cpus_) {
    cpu->thread.reset();  // joins
  }
  coalesced_->drain();
  unread_ = serial_.finish(kPatience);

  auto ending = *stop_.ending();
  using Kind = Ending::Kind;
  // What became of a kernel after its panic matters less than the panic.
  const bool after_panic = ending.kind == Kind::Reset || ending.kind == Kind::PowerOff ||
                           ending.kind == Kind::Timeout || ending.kind == Kind::Panic;
  if (console_watch_.panic() && after_panic) {
    ending.kind = Kind::Panic;
    ending.detail = *console_watch_.panic();
  }
  return ending;
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
