#include "vmm/debug/junit.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace martlet {
namespace {

struct Suite {
  std::string name;
  std::vector<TestResult> tests;
};

/// How many bytes of `text` are one character that XML 1.0 knows (§2.2); 0: none.
std::size_t xml_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto lead = byte(0);
  if (lead < 0x80) {
    return lead >= 0x20 || lead == '\t' || lead == '\n' ? 1 : 0;
  }
  const std::size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size) {
    return 0;
  }
  std::uint32_t code = lead & (0x7fU >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) {
      return 0;
    }
    code = code << 6U | (byte(i) & 0x3fU);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x1'0000);
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return overlong || surrogate || code > 0x10'ffff || code == 0xfffe || code == 0xffff ? 0 : size;
}

std::string xml(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto size = xml_character(text);
    switch (text.front()) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\n':
        out += "&#10;";
        break;
      default:
        out += size == 0 ? "\xef\xbf\xbd" : text.substr(0, size);  // U+FFFD
    }
    text.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return out;
}

std::size_t count(const std::vector<TestResult>& tests, TestStatus status) {
  return static_cast<std::size_t>(std::ranges::count(tests, status, &TestResult::status));
}

std::string counts(const std::vector<TestResult>& tests) {
  return fmt::format(R"(tests="{}" failures="{}" errors="{}" skipped="{}")", tests.size(),
                     count(tests, TestStatus::Failed), count(tests, TestStatus::Error),
                     count(tests, TestStatus::Skipped));
}

std::string test_case(const TestResult& test, std::string_view suite, double seconds) {
  auto text =
      fmt::format(R"(    <testcase classname="{}" name="{}" time="{:.3f}")", xml(suite), xml(test.name), seconds);
  if (test.status == TestStatus::Passed && test.log.empty()) {
    return text + "/>\n";
  }
  text += ">\n";
  if (test.status != TestStatus::Passed) {
    const auto* const element = test.status == TestStatus::Skipped  ? "skipped"
                                : test.status == TestStatus::Failed ? "failure"
                                                                    : "error";
    text += fmt::format("      <{} message=\"{}\"/>\n", element, xml(test.reason));
  }
  if (!test.log.empty()) {
    text += fmt::format("      <system-out>{}</system-out>\n", xml(test.log));
  }
  return text + "    </testcase>\n";
}

/// The boot, as tests.
Suite own_tests(const Verdict& verdict) {
  Suite suite{.name = "martlet", .tests = {}};
  const bool tests_failed = verdict.name == "tests-failed" || verdict.name == "forbidden-output" ||
                            verdict.name == "missing-output";  // told by tests of their own
  auto& boot = suite.tests.emplace_back(TestResult{.name = "boot"});
  if (verdict.exit_code != 0 && !tests_failed) {
    boot.status = verdict.name == "host-error" || verdict.name == "signal" ? TestStatus::Error : TestStatus::Failed;
    boot.reason = describe(verdict);
  }
  for (const auto& finding : verdict.findings) {
    boot.log += describe(finding) + "\n";
  }
  for (const auto& pattern : verdict.patterns) {
    const bool expected = pattern.kind == Verdict::Pattern::Kind::Expect;
    const bool passed = expected == pattern.seen.has_value();
    suite.tests.push_back({.name = fmt::format("{}: {}", expected ? "expect" : "forbid", pattern.text),
                           .status = passed ? TestStatus::Passed : TestStatus::Failed,
                           .reason = passed     ? ""
                                     : expected ? "not seen"
                                                : *pattern.seen});
  }
  return suite;
}

}  // namespace

std::string to_junit(const Verdict& verdict) {
  std::vector<Suite> suites{own_tests(verdict)};
  std::map<std::string_view, std::size_t> index;
  std::vector<TestResult> all = suites.front().tests;
  for (const auto& test : verdict.tests) {
    const auto [at, is_new] = index.try_emplace(test.suite, suites.size());
    if (is_new) {
      suites.push_back({.name = test.suite.empty() ? "ktap" : test.suite, .tests = {}});
    }
    suites[at->second].tests.push_back(test);
    all.push_back({.status = test.status});
  }
  const auto seconds = static_cast<double>(verdict.elapsed.count()) / 1000;
  auto text =
      fmt::format("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"martlet\" {} time=\"{:.3f}\">\n",
                  counts(all), seconds);
  for (const auto& suite : suites) {
    const bool own = &suite == &suites.front();
    text += fmt::format("  <testsuite name=\"{}\" {} time=\"{:.3f}\">\n", xml(suite.name), counts(suite.tests),
                        own ? seconds : 0);
    for (const auto& test : suite.tests) {
      text += test_case(test, suite.name, own && test.name == "boot" ? seconds : 0);
    }
    text += "  </testsuite>\n";
  }
  return text + "</testsuites>\n";
}

}  // namespace martlet
