#include "tests/boot/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

namespace martlet::test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kGiB = 1ULL << 30U;

/// What to boot, and what differs from machine to machine in its report.
struct Case {
  std::string name;
  Guest guest;
  bool acpi = true;
  std::uint32_t cpus_seen = guest.cpus;  // by the kernel
  std::string console_irq = "25";        // GSI 4; without ACPI's hardware-reduced mode Linux numbers it 4
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.guest; }

constexpr int kExitCodeWithoutAcpi = 7;

Case without_acpi(Case a_case, std::uint32_t cpus_seen) {
  a_case.name += "NoAcpi";
  a_case.guest.append += " acpi=off martlet.exit=" + std::to_string(kExitCodeWithoutAcpi);
  a_case.acpi = false;
  a_case.cpus_seen = cpus_seen;
  a_case.console_irq = "4";
  return a_case;
}

/// Boots `guest` once, however many tests ask for its report.
const Report& report_of(const Guest& guest) {
  static std::map<std::string, Report> reports;
  std::ostringstream key;
  key << guest;
  const auto found = reports.find(key.str());
  return found != reports.end() ? found->second : reports.emplace(key.str(), Report{boot(guest)}).first->second;
}

/// Value of "path: value" lines whose path ends in `file`, in their order.
std::vector<std::string> values_of(const std::vector<std::string>& lines, std::string_view file) {
  std::vector<std::string> values;
  for (const auto& line : lines) {
    const auto colon = line.find(": ");
    if (line.substr(0, colon).ends_with(file)) {
      values.push_back(line.substr(colon + 2));
    }
  }
  return values;
}

class ReportTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override { ASSERT_FALSE(report().section("dmesg").empty()) << "no report: " << report().ended(); }
  static const Report& report() { return report_of(GetParam().guest); }
  static const Guest& guest() { return GetParam().guest; }
};

TEST_P(ReportTest, EndsAsItShould) {
  const auto& ended = report().ended();
  if (GetParam().acpi) {
    EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
    EXPECT_EQ(ended.verdict["verdict"], "power-off") << ended;
  } else {
    EXPECT_EQ(ended.outcome.exit_code, kExitCodeWithoutAcpi) << ended;
    EXPECT_EQ(ended.verdict["verdict"], "guest-exit") << ended;
  }
  EXPECT_EQ(ended.verdict["exit_code"], ended.outcome.exit_code);
}

TEST_P(ReportTest, CpusAreCoresOfOnePackage) {
  const auto cpus = report().cpus();
  const auto count = std::to_string(GetParam().cpus_seen);
  ASSERT_EQ(cpus.size(), GetParam().cpus_seen);
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    auto cpu = cpus[i];
    const auto number = std::to_string(i);
    EXPECT_EQ(cpu["processor"], number);
    const std::string flags = " " + cpu["flags"] + " ";
    EXPECT_THAT(flags, HasSubstr(" hypervisor "));
    EXPECT_THAT(flags, HasSubstr(" x2apic "));
    EXPECT_THAT(flags, HasSubstr(" tsc_deadline_timer "));
    if (GetParam().cpus_seen == guest().cpus) {  // a kernel that finds no table of its CPUs tells less
      EXPECT_EQ(cpu["apicid"], number);
      EXPECT_EQ(cpu["initial apicid"], number);
      EXPECT_EQ(cpu["core id"], number);
      EXPECT_EQ(cpu["physical id"], "0");
      EXPECT_EQ(cpu["siblings"], count);
      EXPECT_EQ(cpu["cpu cores"], count);
    }
  }
  const auto last = std::to_string(GetParam().cpus_seen - 1);
  EXPECT_THAT(report().section("cpu_online"), ElementsAre(last == "0" ? "0" : "0-" + last));

  const auto& topology = report().section("topology");
  const auto cores = values_of(topology, "core_id");
  EXPECT_EQ(std::set<std::string>(cores.begin(), cores.end()).size(), cpus.size());
  EXPECT_THAT(values_of(topology, "physical_package_id"), ::testing::Each("0"));
  for (const auto* file : {"thread_siblings_list", "core_cpus_list"}) {  // nobody shares a core
    const auto siblings = values_of(topology, file);
    ASSERT_EQ(siblings.size(), cpus.size());
    for (std::size_t i = 0; i < siblings.size(); ++i) {
      EXPECT_EQ(siblings[i], std::to_string(i)) << file;
    }
  }
}

TEST_P(ReportTest, LastLevelCacheIsShared) {
  const auto& cache = report().section("cache");
  const auto levels = values_of(cache, "/level");
  const auto shared = values_of(cache, "/shared_cpu_list");
  ASSERT_FALSE(levels.empty());
  ASSERT_EQ(levels.size(), shared.size());
  const auto cpus = GetParam().cpus_seen;
  const auto everybody = cpus == 1 ? "0" : "0-" + std::to_string(cpus - 1);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    EXPECT_EQ(shared[i], levels[i] == "3" ? everybody : "0") << "level " << levels[i];
  }
}

TEST_P(ReportTest, MemoryIsAsAskedFor) {
  // The rest is the kernel's own: its image, and the table of all pages.
  const auto asked = std::uint64_t{guest().memory_mib} * 1024;
  const auto least = guest().memory_mib >= 4096 ? 95U : guest().memory_mib >= 512 ? 85U : 65U;
  EXPECT_GE(report().memory_total_kib(), asked * least / 100);
  EXPECT_LE(report().memory_total_kib(), asked);

  const auto ranges = top_level_ranges(report().section("iomem"));
  std::uint64_t ram = 0;
  std::uint64_t tables = 0;
  std::uint64_t above = 0;
  for (const auto& range : ranges) {
    const auto size = range.last - range.first + 1;
    if (range.name == "System RAM") {
      ram += size;
      above += range.first >= 4 * kGiB ? size : 0;
      EXPECT_TRUE(range.last < 3 * kGiB || range.first >= 4 * kGiB) << "in the hole below 4 GiB";
    } else if (range.name == "ACPI Tables") {
      tables += size;
    }
  }
  const auto bytes = std::uint64_t{guest().memory_mib} << 20U;
  EXPECT_GT(tables, 0U) << "ACPI tables are marked as such";
  EXPECT_LE(ram + tables, bytes);
  EXPECT_GE(ram + tables, bytes - (1U << 20U)) << "less is missing than the first MiB";
  EXPECT_EQ(above, bytes > 3 * kGiB ? bytes - 3 * kGiB : 0);
}

TEST_P(ReportTest, ClockIsKvms) {
  EXPECT_THAT(report().section("current_clocksource"), ElementsAre("kvm-clock"));
  EXPECT_THAT(report().messages(), Contains("TSC deadline timer available"));
}

TEST_P(ReportTest, ConsoleIsA16550WithItsInterrupt) {
  EXPECT_THAT(report().messages(), Contains(HasSubstr("ttyS0 at I/O 0x3f8 (irq = " + GetParam().console_irq +
                                                      ", base_baud = 115200) is a 16550A")));
  // It was used: the report went through the tty, whose driver waits for interrupts.
  EXPECT_THAT(report().section("interrupts"), Contains(HasSubstr("ttyS0")));
  for (const auto& line : report().section("interrupts")) {
    if (line.ends_with("ttyS0")) {
      std::istringstream words{line};
      std::string number;
      words >> number;
      std::uint64_t sum = 0;
      for (std::uint64_t count = 0; words >> count;) {
        sum += count;
      }
      EXPECT_GT(sum, 0U) << line;
    }
  }
}

TEST_P(ReportTest, ConsoleCostsFewExits) {
  const auto& ended = report().ended();
  const auto exits = exits_of(ended.outcome.err, "uart");
  ASSERT_TRUE(exits) << ended.outcome.err;
  EXPECT_LT(static_cast<double>(*exits), 2.2 * static_cast<double>(ended.outcome.out.size()));
}

TEST_P(ReportTest, KernelComplainsOfNothing) { EXPECT_THAT(report().unexplained_complaints(), IsEmpty()); }

TEST_P(ReportTest, AcpiIsWithoutErrors) {
  const auto messages = report().messages();
  for (const auto& message : messages) {
    for (const auto* words : {"ACPI Error", "ACPI BIOS Error", "ACPI Warning", "ACPI Exception", "Firmware Bug"}) {
      EXPECT_THAT(message, ::testing::Not(HasSubstr(words)));
    }
  }
  if (GetParam().acpi) {
    EXPECT_THAT(messages, Contains("ACPI: PM: (supports S0 S5)"));
    EXPECT_THAT(messages, Contains("ACPI: Using ACPI (MADT) for SMP configuration information"));
  } else {
    EXPECT_THAT(messages, ::testing::Not(Contains("ACPI: Interpreter enabled")));
  }
}

TEST_P(ReportTest, DeviceTreeIsHandedOver) {
  const bool asked = std::ranges::find(guest().more, "--dtb") != guest().more.end();
  const auto messages = report().messages();
  EXPECT_EQ(std::ranges::any_of(messages, [](const auto& line) { return line.starts_with("reserve setup_data"); }),
            asked)
      << "the kernel found something behind its boot parameters";
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

Guest guest(std::string kernel, std::string image, std::uint32_t cpus, std::uint32_t memory_mib = 512,
            std::vector<std::string> more = {}) {
  return {.kernel = std::move(kernel),
          .image = std::move(image),
          .append = "quiet martlet.test=report",
          .cpus = cpus,
          .memory_mib = memory_mib,
          .more = std::move(more)};
}

INSTANTIATE_TEST_SUITE_P(
    Cloud61, ReportTest,
    ::testing::Values(Case{"BzImage", guest("cloud-6.1", "vmlinuz", 2)},
                      Case{"Vmlinux", guest("cloud-6.1", "vmlinux", 1)},
                      Case{"Memory128M", guest("cloud-6.1", "vmlinuz", 1, 128)},
                      Case{"Memory5G", guest("cloud-6.1", "vmlinux", 4, 5120)},
                      Case{"DeviceTree", guest("cloud-6.1", "vmlinuz", 1, 512, {"--dtb", "auto"})},
                      // Built without a parser for MP tables: boots, on one CPU and without its APIC.
                      without_acpi({"BzImage", guest("cloud-6.1", "vmlinuz", 2)}, 1)),
    name_of_case);

INSTANTIATE_TEST_SUITE_P(Full61, ReportTest,
                         ::testing::Values(Case{"BzImage", guest("full-6.1", "vmlinuz", 4)},
                                           Case{"Vmlinux", guest("full-6.1", "vmlinux", 1)},
                                           without_acpi({"BzImage", guest("full-6.1", "vmlinuz", 2)}, 2)),
                         name_of_case);

INSTANTIATE_TEST_SUITE_P(Cloud612, ReportTest,
                         ::testing::Values(Case{"BzImage", guest("cloud-6.12", "vmlinuz", 1, 128)},
                                           Case{"Vmlinux", guest("cloud-6.12", "vmlinux", 4)}),
                         name_of_case);

}  // namespace
}  // namespace martlet::test
