#include "vmm/debug/splat_watch.h"

#include <algorithm>
#include <utility>

#include "vmm/debug/splat.h"

namespace martlet {
namespace {

constexpr std::size_t kLongestReport = 200;  // lines

bool is_die_head(FindingKind kind) noexcept {
  return kind == FindingKind::Oops || kind == FindingKind::Bug || kind == FindingKind::StackOverflow;
}

}  // namespace

void SplatWatch::hear(const PrintkLine& line, std::uint64_t number, std::chrono::milliseconds now,
                      std::vector<Finding>& findings) {
  auto text = line.text;
  if (line.begins()) {
    stamps_ = true;
    last_stamp_ = std::max(last_stamp_, *line.stamp);
  } else if (line.stamp) {  // after a prompt, if the kernel says it now; else somebody quotes what it said
    if (!stamps_ || *line.stamp < last_stamp_) {
      return;
    }
  } else if (stamps_) {
    return;
  } else {
    text = without_caller(line.before);
  }
  const auto head = splat_head(text, line.stamp ? Stamped::Yes : Stamped::No);
  const bool is_second_line = open_ && !located_ && is_die_head(findings[*open_].kind) && is_die_line(text);
  if (head && !is_second_line) {
    begin({.kind = head->kind,
           .text = std::string{head->text},
           .where = std::string{symbol_in(head->text)},
           .cpu = cpu_in(head->text),
           .console = console_,
           .line = number,
           .seen = now,
           .stamp = line.stamp},
          findings);
  } else if (open_) {
    follow(text, findings[*open_]);
  }
  if (text.starts_with("---[ end Kernel panic - not syncing")) {
    panic_is_over_ = panicked_;
  }
}

void SplatWatch::begin(Finding finding, std::vector<Finding>& findings) {
  panicked_ = panicked_ || finding.kind == FindingKind::Panic;
  in_panic_ = false;
  located_ = false;
  lines_ = 0;
  open_.reset();
  const auto known = std::ranges::find_if(findings, [&](const Finding& other) {
    return other.text == finding.text &&
           (finding.stamp ? other.stamp == finding.stamp : other.console != finding.console);
  });
  if (known != findings.end()) {
    open_ = static_cast<std::size_t>(known - findings.begin());
    return;
  }
  // The first of each severity say what happened, however many others come before.
  const auto severity = severity_of(finding.kind);
  if (std::ranges::count(findings, severity, [](const Finding& other) { return severity_of(other.kind); }) <
      kMostOfASeverity) {
    open_ = findings.size();
    findings.push_back(std::move(finding));
  }
}

void SplatWatch::follow(std::string_view text, Finding& finding) {
  if (++lines_ > kLongestReport || text.starts_with("---[ end trace")) {
    open_.reset();
    return;
  }
  if (finding.cpu < 0 && text.starts_with("CPU: ")) {
    finding.cpu = cpu_in(text);
  }
  const auto rip = kernel_rip(text);
  located_ = located_ || !rip.empty();
  if (!finding.where.empty()) {
    return;
  }
  if (!rip.empty()) {
    finding.where = rip;
  } else if (finding.kind == FindingKind::Panic) {
    const auto symbol = text.find(" ? ") == std::string_view::npos ? symbol_in(text) : std::string_view{};
    if (symbol.starts_with("panic+") || symbol.starts_with("vpanic+") || symbol.starts_with("panic.cold+")) {
      in_panic_ = true;
    } else if (in_panic_) {
      finding.where = symbol;
    }
  }
}

}  // namespace martlet
