#include "vmm/debug/ktap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

namespace martlet {
namespace {

constexpr std::size_t kMostLevels = 8;
constexpr std::size_t kLongestName = 256;
constexpr std::size_t kLongestLog = 4096;
constexpr std::size_t kMostResults = 20'000;
constexpr std::size_t kMostKept = std::size_t{32} << 20U;  // bytes of names, reasons and logs

bool begins_with_word(std::string_view text, std::string_view word) {
  return text.size() >= word.size() &&
         std::ranges::equal(text.substr(0, word.size()), word,
                            [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

bool is_version(std::string_view text) { return text.starts_with("KTAP version ") || text.starts_with("TAP version "); }

std::string_view trim(std::string_view text) {
  while (text.starts_with(' ')) {
    text.remove_prefix(1);
  }
  while (text.ends_with(' ')) {
    text.remove_suffix(1);
  }
  return text;
}

/// "1..4", "1..0 # SKIP reason"
std::optional<std::uint64_t> plan_of(std::string_view text) {
  if (!text.starts_with("1..")) {
    return std::nullopt;
  }
  std::uint64_t count = 0;
  const auto* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data() + 3, last, count);
  return error == std::errc{} && (end == last || *end == ' ') ? std::optional{count} : std::nullopt;
}

}  // namespace

std::string_view name_of(TestStatus status) noexcept {
  switch (status) {
    case TestStatus::Passed:
      return "passed";
    case TestStatus::Skipped:
      return "skipped";
    case TestStatus::Failed:
      return "failed";
    case TestStatus::Error:
      break;
  }
  return "error";
}

/// "ok 1 - name # SKIP reason": all but the first word may be missing.
std::optional<KtapParser::Outcome> KtapParser::parse_result(std::string_view text) {
  const bool failed = text.starts_with("not ");
  text.remove_prefix(failed ? 4 : 0);
  if (!text.starts_with("ok") || (text.size() > 2 && text[2] != ' ')) {
    return std::nullopt;
  }
  text.remove_prefix(std::min<std::size_t>(text.size(), 3));
  const auto hash = text.starts_with("# ") ? 0 : text.find(" # ");
  auto reason = hash == std::string_view::npos ? std::string_view{} : trim(text.substr(hash + (hash == 0 ? 1 : 2)));
  auto name = text.substr(0, hash);
  std::uint64_t number = 0;
  const bool numbered = std::from_chars(name.data(), name.data() + name.size(), number).ec == std::errc{};
  name.remove_prefix(std::min(name.find_first_not_of("0123456789"), name.size()));
  name = trim(name);
  if (name == "-" || name.starts_with("- ")) {
    name = trim(name.substr(1));
  }
  auto status = failed ? TestStatus::Failed : TestStatus::Passed;
  if (begins_with_word(reason, "SKIP") || begins_with_word(reason, "XFAIL") ||
      (failed && begins_with_word(reason, "TODO"))) {
    status = TestStatus::Skipped;
  }
  return Outcome{
      .status = status, .number = numbered ? std::optional{number} : std::nullopt, .name = name, .reason = reason};
}

void KtapParser::Level::count(std::optional<std::uint64_t> number) {
  ++seen;
  last = number.value_or(last + 1);
  // One that cannot be told from others stands beyond any plan.
  const auto place =
      last == 0 ? kMostResults : static_cast<std::size_t>(std::min<std::uint64_t>(last - 1, kMostResults));
  numbers.resize(std::max(numbers.size(), place + 1));
  numbers[place] = true;
}

void KtapParser::hear(std::string_view line, Source source) {
  if (started_ && source != source_) {
    // Results may begin anew on the other side: KUnit's at boot, then kselftest's from a program.
    if (!is_version(line)) {
      return;
    }
  }
  std::size_t indent = 0;
  auto text = line;
  while (true) {
    if (text.starts_with(' ')) {
      text.remove_prefix(1);
      ++indent;
    } else if (text.starts_with("# ") && (hashes_ || (started_ && is_version(text.substr(2)))) &&
               (is_version(text.substr(2)) || plan_of(text.substr(2)) || parse_result(text.substr(2)) ||
                text.substr(2).starts_with("# "))) {
      hashes_ = true;
      text.remove_prefix(2);
      indent += 2;
    } else {
      break;
    }
  }
  if (is_version(text)) {
    if (indent == 0) {
      if (levels_.size() == 1 && levels_.front().untold()) {
        levels_.clear();  // said twice
      }
      close_all({});
      hashes_ = false;
      started_ = true;
      source_ = source;
    }
    if (started_) {
      begin_group(indent);
    }
    return;
  }
  if (levels_.empty()) {
    return;
  }
  constexpr std::string_view kSubtest = "# Subtest: ";
  if (text.starts_with(kSubtest)) {
    begin_group(indent).name = text.substr(kSubtest.size(), kLongestName);
  } else if (const auto plan = plan_of(text)) {
    level_at(indent).planned = plan;
  } else if (const auto outcome = parse_result(text)) {
    conclude(indent, *outcome);
  } else if (text.starts_with("Bail out!")) {
    keep({.suite = levels_.back().name, .name = "Bail out!", .status = TestStatus::Error, .reason = std::string{text}});
    levels_.clear();
  } else if (text.starts_with('#') || source == Source::Program || indent > levels_.back().indent) {
    if (auto& log = levels_.back().log; log.size() + line.size() < kLongestLog) {
      log.append(line).append("\n");
    }
  }
}

/// Opens a level, when the indentation is more than the last one's. Less of it closes none: that is for the result
/// that the levels were nested in.
KtapParser::Level& KtapParser::level_at(std::size_t indent) {
  if (levels_.empty() || (indent > levels_.back().indent && levels_.size() < kMostLevels)) {
    levels_.push_back({.indent = indent, .first = results_.size()});
    return levels_.back();
  }
  const auto at = std::ranges::find_if(levels_.rbegin(), levels_.rend(),
                                       [indent](const Level& level) { return level.indent <= indent; });
  return at == levels_.rend() ? levels_.front() : *at;
}

/// A group says that it begins. One that stands there with results already has lost its own.
KtapParser::Level& KtapParser::begin_group(std::size_t indent) {
  if (levels_.size() > 1 && levels_.back().indent == indent && levels_.back().seen != 0) {
    close_last({}, End::Cut, {});
    levels_.back().count({});
  }
  return level_at(indent);
}

void KtapParser::conclude(std::size_t indent, const Outcome& outcome) {
  auto* level = &level_at(indent);
  bool has_nested = false;
  bool nested_failed = false;
  const auto name = outcome.name.substr(0, kLongestName);
  while (&levels_.back() != level) {
    const auto first = levels_.back().first;
    close_last(name, End::Complete, {});
    has_nested = has_nested || results_.size() > first;
    nested_failed =
        nested_failed || std::any_of(results_.begin() + static_cast<std::ptrdiff_t>(first), results_.end(),
                                     [](const TestResult& result) {
                                       return result.status == TestStatus::Failed || result.status == TestStatus::Error;
                                     });
  }
  level->count(outcome.number);
  auto log = std::exchange(level->log, {});
  if (has_nested && (outcome.status != TestStatus::Failed || nested_failed)) {
    return;  // it says no more than they did
  }
  keep({.name = name.empty() ? fmt::format("test {}", level->last) : std::string{name},
        .status = outcome.status,
        .reason = std::string{outcome.reason},
        .log = std::move(log)});
}

/// `name` is that of the test which the level's own are nested in. Whether something of it is missing.
bool KtapParser::close_last(std::string_view name, End end, std::string_view crash) {
  auto level = std::move(levels_.back());
  levels_.pop_back();
  const bool nested = !levels_.empty();
  const auto planned = level.planned.value_or(0);
  // KUnit's suites may go on counting from one module to the next: where a number is beyond the plan, how many counts.
  if (level.numbers.size() > planned) {
    level.numbers.assign(static_cast<std::size_t>(std::min<std::uint64_t>(level.seen, kMostResults)), true);
  }
  bool missing = false;
  const auto miss = [&](std::string test, std::string reason) {
    keep({.name = std::move(test), .status = TestStatus::Error, .reason = std::move(reason), .log = level.log});
    missing = true;
  };
  const auto miss_planned = [&](std::uint64_t first, std::uint64_t last) {
    miss(first == last ? fmt::format("test {} of {}", first, planned)
                       : fmt::format("tests {} to {} of {}", first, last, planned),
         "planned, but there is no result");
  };
  std::uint64_t next = 1;  // the first that nothing is known of
  for (std::size_t i = 0; i < level.numbers.size(); ++i) {
    if (level.numbers[i]) {
      if (next <= i) {
        miss_planned(next, i);
      }
      next = i + 2;
    }
  }
  if (end == End::Cut && (next <= planned ? !crash.empty() : nested || level.untold())) {
    miss(next <= planned ? fmt::format("test {} of {}", next, planned)
         : level.planned ? std::string{"the end of its tests"}
                         : fmt::format("test {}", next),
         crash.empty() ? std::string{"the output ends here"} : fmt::format("the kernel crashed in it: {}", crash));
    ++next;
  }
  if (next <= planned) {
    miss_planned(next, planned);
  }
  if (level.planned && level.seen > planned && (nested || source_ == Source::Program)) {
    miss("more tests than planned", fmt::format("{} results, but {} were planned", level.seen, planned));
  }
  const auto prefix = name.empty() ? std::string_view{level.name} : name;
  for (auto result = level.first; nested && !prefix.empty() && result < results_.size(); ++result) {
    auto& suite = results_[result].suite;
    suite = suite.empty() ? std::string{prefix} : fmt::format("{}.{}", prefix, suite);
    kept_ += prefix.size();
  }
  return missing;
}

void KtapParser::close_all(std::string_view crash) {
  while (!levels_.empty()) {
    const bool told = close_last({}, End::Cut, crash);
    if (told && !levels_.empty()) {
      crash = {};
      levels_.back().count({});  // what is missing is missing in this one's next test
    }
  }
}

void KtapParser::finish(std::string_view crash) { close_all(crash); }

void KtapParser::keep(TestResult result) {
  const auto size = result.name.size() + result.reason.size() + result.log.size() + sizeof(result);
  if (results_.size() == kMostResults) {
    results_.push_back({.name = "more tests", .status = TestStatus::Error, .reason = "too many results to keep"});
  }
  if (results_.size() > kMostResults) {
    return;
  }
  if (kept_ + size > kMostKept) {
    result.log.clear();
    result.reason.clear();
    result.name.resize(std::min<std::size_t>(result.name.size(), 32));
  }
  kept_ += size;
  results_.push_back(std::move(result));
}

std::size_t KtapParser::count(TestStatus status) const noexcept {
  return static_cast<std::size_t>(std::ranges::count(results_, status, &TestResult::status));
}

}  // namespace martlet
