#include "tests/boot/report.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <sstream>
#include <utility>

namespace martlet::test {
namespace {

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return std::string{text.substr(first, text.find_last_not_of(" \t") - first + 1)};
}

/// "<4>[    1.234567] text", as dmesg -r prints it.
struct Message {
  int level = 0;
  std::string text;
};
std::optional<Message> parse_message(const std::string& line) {
  const auto level_end = line.find('>');
  if (line.empty() || line[0] != '<' || level_end == std::string::npos) {
    return std::nullopt;
  }
  const int priority = std::stoi(line.substr(1));
  if (priority > 7) {  // not the kernel's
    return std::nullopt;
  }
  const auto stamp_end = line.find("] ", level_end);
  return Message{.level = priority,
                 .text = line.substr(stamp_end == std::string::npos ? level_end + 1 : stamp_end + 2)};
}

/// Joins each trace ("cut here" to "end trace") to one complaint.
std::vector<std::string> with_traces_joined(const std::vector<std::string>& lines) {
  std::vector<std::string> complaints;
  bool in_trace = false;
  for (const auto& line : lines) {
    if (in_trace) {
      complaints.back() += "\n" + line;
      in_trace = line.find("---[ end trace") == std::string::npos;
    } else {
      complaints.push_back(line);
      in_trace = line.find("[ cut here ]") != std::string::npos;
    }
  }
  return complaints;
}

}  // namespace

Report::Report(Ended ended) : ended_{std::move(ended)} {
  std::istringstream console{ended_.outcome.out};
  std::string name;
  for (std::string line; std::getline(console, line);) {
    if (line.starts_with("BEGIN ")) {
      name = line.substr(6);
    } else if (line == "END " + name) {
      name.clear();
    } else if (!name.empty()) {
      sections_[name].push_back(line);
    }
  }
}

const std::vector<std::string>& Report::section(const std::string& name) const {
  static const std::vector<std::string> kNothing;
  const auto found = sections_.find(name);
  return found != sections_.end() ? found->second : kNothing;
}

std::vector<std::map<std::string, std::string>> Report::cpus() const {
  std::vector<std::map<std::string, std::string>> cpus;
  for (const auto& line : section("cpuinfo")) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) {
      continue;
    }
    const auto key = trimmed(line.substr(0, colon));
    if (key == "processor") {
      cpus.emplace_back();
    }
    if (!cpus.empty()) {
      cpus.back()[key] = trimmed(line.substr(colon + 1));
    }
  }
  return cpus;
}

std::uint64_t Report::memory_total_kib() const {
  for (const auto& line : section("meminfo")) {
    if (line.starts_with("MemTotal:")) {
      return std::stoull(line.substr(line.find(':') + 1));
    }
  }
  return 0;
}

std::vector<std::string> Report::complaints() const {
  std::vector<std::string> complaints;
  for (const auto& line : section("dmesg")) {
    if (const auto message = parse_message(line); message && message->level <= 4) {
      complaints.push_back(message->text);
    }
  }
  return complaints;
}

std::vector<std::string> Report::unexplained_complaints() const {
  // Words of complaints that have their reason.
  std::vector<std::string_view> known{
      "PCI: Fatal: No config space access function found",  // there is no PCI
      "PCI: System does not support PCI",
      "ACPI: MPS support code is not built-in",  // acpi=off on a kernel that needs ACPI for its APICs
      "smpboot: weird, boot CPU (#0) not listed by the BIOS", "PMU not available due to virtualization",
      "amd_pstate: ",  // frequency is the host's affair
      "Please enable it if your BIOS has the CPPC option",
      // A host too busy to run the guest all the time.
      "clocksource: Long readout interval", "hrtimer: interrupt took", "hogged CPU for",
      // News of the host's CPU.
      "Speculative Return Stack Overflow", "Spectre", "RETBleed", "MDS", "TAA", "MMIO Stale Data", "GDS", "VMSCAPE",
      "TSA"};
  if (std::getenv("MARTLET_LAB") != nullptr) {
    known.push_back("RDSEED32 is broken");  // an erratum of the CPU model that the lab's pretends to be
  }
  auto unexplained = with_traces_joined(complaints());
  std::erase_if(unexplained, [&](const std::string& complaint) {
    return std::ranges::any_of(known, [&](auto words) { return complaint.find(words) != std::string::npos; });
  });
  return unexplained;
}

std::vector<std::string> Report::messages() const {
  std::vector<std::string> messages;
  for (const auto& line : section("dmesg")) {
    if (auto message = parse_message(line)) {
      messages.push_back(std::move(message->text));
    }
  }
  return messages;
}

std::vector<IoMemory> top_level_ranges(const std::vector<std::string>& iomem) {
  std::vector<IoMemory> ranges;
  for (const auto& line : iomem) {
    if (line.empty() || std::isxdigit(static_cast<unsigned char>(line[0])) == 0) {
      continue;  // part of the range before
    }
    const auto dash = line.find('-');
    const auto colon = line.find(" : ");
    ranges.push_back({.first = std::stoull(line, nullptr, 16),
                      .last = std::stoull(line.substr(dash + 1), nullptr, 16),
                      .name = line.substr(colon + 3)});
  }
  return ranges;
}

std::optional<std::uint64_t> exits_of(std::string_view statistics, std::string_view name) {
  std::istringstream lines{std::string{statistics}};
  for (std::string line; std::getline(lines, line);) {
    const auto text = trimmed(line);
    if (text.starts_with(std::string{name} + " ")) {
      return std::stoull(text.substr(name.size()));
    }
  }
  return std::nullopt;
}

}  // namespace martlet::test
