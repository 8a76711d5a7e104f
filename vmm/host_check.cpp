#include "vmm/host_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <system_error>

#include "vmm/base/error.h"
#include "vmm/kvm/capabilities.h"
#include "vmm/kvm/system.h"
#include "vmm/machine_debugger.h"
#include "vmm/x86_64/int3_probe.h"

namespace martlet {
namespace {

std::string read_text(const char* path) {
  std::ifstream file{path};
  return {std::istreambuf_iterator<char>{file}, {}};
}

class Report {
 public:
  void good(std::string_view name, std::string_view text) { line("ok", name, text); }
  void note(std::string_view name, std::string_view text) { line("--", name, text); }
  void bad(std::string_view name, std::string_view text) { line("NO", name, text); }

  std::string take() { return std::move(text_); }

 private:
  void line(std::string_view mark, std::string_view name, std::string_view text) {
    text_ += fmt::format("[{}] {:<18} {}\n", mark, name, text);
  }
  std::string text_;
};

void check_cpu(Report& report) {
  const auto cpuinfo = read_text("/proc/cpuinfo");
  const auto flags_at = cpuinfo.find("\nflags");
  const auto flags = flags_at == std::string::npos
                         ? std::string{}
                         : cpuinfo.substr(flags_at, cpuinfo.find('\n', flags_at + 1) - flags_at) + " ";
  if (flags.find(" vmx ") != std::string::npos) {
    report.good("CPU", "VT-x");
  } else if (flags.find(" svm ") != std::string::npos) {
    report.good("CPU", "AMD-V");
  } else {
    report.note("CPU",
                "neither VT-x nor AMD-V: if KVM works at all, it interprets guests; tiny ones run, a stock Linux does "
                "not. Enable VT-x or AMD-V in the firmware, nested virtualisation on the host above, or use the lab: "
                "tests/lab/lab");
  }
}

std::optional<KvmSystem> check_kvm(Report& report) {
  try {
    KvmSystem kvm;
    report.good("/dev/kvm", fmt::format("KVM API version {}", KVM_API_VERSION));
    return kvm;
  } catch (const HostError& error) {
    report.bad("/dev/kvm", error.what());
    return std::nullopt;
  }
}

void check_capabilities(Report& report, const KvmSystem& kvm) {
  for (const auto& capability : kCapabilities) {
    if (kvm.extension(capability.number) > 0) {
      report.good(capability.name.substr(4), capability.purpose);
    } else {
      report.note(capability.name.substr(4),
                  fmt::format("missing: {}. Linux {} or later has it", capability.purpose, capability.since));
    }
  }
  report.good("vCPUs", fmt::format("{} recommended, {} at most", kvm.extension(KVM_CAP_NR_VCPUS),
                                   kvm.extension(KVM_CAP_MAX_VCPUS)));
}

/// What gdb's `break` and `stepi` will be.
void check_breakpoints(Report& report, const KvmSystem& kvm) {
  if (int3_exits(kvm)) {
    report.good("gdb", "software breakpoints (int3): as many as you like");
  } else {
    report.note("gdb",
                "this host's KVM reports no int3: breakpoints take the four debug registers, and gdb is told so at the "
                "fifth. Hosts with VT-x or AMD-V of their own report it");
  }
  if (blocks_interrupts(kvm)) {
    report.good("gdb stepi", "interrupts wait while a vCPU steps");
  } else {
    report.note("gdb stepi",
                "this host's KVM cannot hold interrupts back: a step may end in an interrupt handler. Linux 5.15 or "
                "later can");
  }
}

void check_tun(Report& report) {
  const Fd tun{::open("/dev/net/tun", O_RDWR | O_CLOEXEC)};
  if (tun) {
    report.good("/dev/net/tun", "TAP devices for -n");
    return;
  }
  const int error = errno;
  report.note("/dev/net/tun",
              fmt::format("{}: no TAP networking. {}", std::generic_category().message(error),
                          error == ENOENT || error == ENODEV ? "Fix: modprobe tun"
                                                             : "Fix: sudo setfacl -m u:$USER:rw /dev/net/tun"));
}

void check_vhost(Report& report) {
  if (const Fd vhost{::open("/dev/vhost-net", O_RDWR | O_CLOEXEC)}; vhost) {
    report.good("/dev/vhost-net", "network frames carried by the kernel");
  } else {
    report.note("/dev/vhost-net", fmt::format("{}: Martlet carries network frames itself. Fix: modprobe vhost_net",
                                              std::generic_category().message(errno)));
  }
}

void check_huge_pages(Report& report) {
  const auto thp = read_text("/sys/kernel/mm/transparent_hugepage/enabled");
  if (thp.find("[never]") != std::string::npos || thp.empty()) {
    report.note("huge pages",
                "transparent huge pages are off: guests fault 30 times as often. "
                "Fix: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
  } else {
    report.good("huge pages", "transparent, by madvise");
  }
  const auto reserved = read_text("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
  if (reserved.empty() || reserved.starts_with("0")) {
    report.note("hugetlb", "none reserved; for -m SIZE,hugepages=on: sudo sysctl vm.nr_hugepages=COUNT (2 MiB each)");
  } else {
    report.good("hugetlb", fmt::format("{} pages of 2 MiB reserved", reserved.substr(0, reserved.find('\n'))));
  }
}

void check_nested(Report& report) {
  for (const auto* path : {"/sys/module/kvm_intel/parameters/nested", "/sys/module/kvm_amd/parameters/nested"}) {
    const auto nested = read_text(path);
    if (nested.starts_with("Y") || nested.starts_with("1")) {
      report.good("nested", "guests may use KVM themselves");
      return;
    }
  }
  report.note("nested", "guests cannot use KVM themselves. Fix: reload kvm_intel or kvm_amd with nested=1");
}

}  // namespace

HostReport check_host() {
  Report report;
  utsname kernel{};
  ::uname(&kernel);
  report.good("host", fmt::format("{} {} {}", kernel.sysname, kernel.release, kernel.machine));
  check_cpu(report);
  const auto kvm = check_kvm(report);
  if (kvm) {
    check_capabilities(report, *kvm);
    check_breakpoints(report, *kvm);
  }
  check_tun(report);
  check_vhost(report);
  check_huge_pages(report);
  check_nested(report);
  return {.text = report.take(), .usable = kvm.has_value()};
}

}  // namespace martlet
