#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace martlet {

enum class TestStatus { Passed, Skipped, Failed, Error };
[[nodiscard]] std::string_view name_of(TestStatus status) noexcept;

struct TestResult {
  std::string suite{};  ///< the tests it is nested in: "example", "overflow.shift"; empty at the top
  std::string name{};
  TestStatus status = TestStatus::Passed;
  std::string reason{};  ///< of what is not passed
  std::string log{};     ///< diagnostics ahead of it
};

/// Reads test results in the kernel's format (Documentation/dev-tools/ktap.rst) as KUnit and kselftest print them:
/// nested by any indentation, or by "# " as kselftest's runner does; plans before or after their tests. Lines that are
/// none of it may come in between. What was planned and has no result is an error, and so is more than was planned. Its
/// input may be anything: what is kept is bounded.
class KtapParser {
 public:
  /// Who printed a line: results come from one of the two, the other one's lines are none of their business.
  enum class Source { Kernel, Program };

  void hear(std::string_view line, Source source);

  /// Nothing more comes. `crash`, if not empty, is what became of the kernel: the test that ran then is told so.
  void finish(std::string_view crash = {});

  /// A "KTAP version" or "TAP version" line was there.
  [[nodiscard]] bool started() const noexcept { return started_; }
  [[nodiscard]] const std::vector<TestResult>& results() const noexcept { return results_; }
  [[nodiscard]] std::size_t count(TestStatus status) const noexcept;
  [[nodiscard]] bool failed() const noexcept { return count(TestStatus::Failed) != 0 || count(TestStatus::Error) != 0; }

 private:
  /// A group of tests that stand at the same indentation; the first is the whole.
  struct Level {
    std::size_t indent = 0;
    std::string name{};  ///< as "# Subtest:" told; else not known before the group's own result comes
    std::optional<std::uint64_t> planned{};
    std::uint64_t seen = 0;
    std::uint64_t last = 0;       ///< the newest result's number
    std::vector<bool> numbers{};  ///< which of them have a result, from 1
    std::size_t first = 0;        ///< its results, and those nested in it, begin here
    std::string log{};

    /// Neither a plan nor a result yet.
    [[nodiscard]] bool untold() const noexcept { return seen == 0 && !planned; }
    /// A result, or what stands for one. Without a number it is the next.
    void count(std::optional<std::uint64_t> number);
  };
  struct Outcome {
    TestStatus status;
    std::optional<std::uint64_t> number;
    std::string_view name;
    std::string_view reason;
  };
  enum class End { Complete, Cut };

  [[nodiscard]] static std::optional<Outcome> parse_result(std::string_view text);
  Level& level_at(std::size_t indent);
  Level& begin_group(std::size_t indent);
  void conclude(std::size_t indent, const Outcome& outcome);
  bool close_last(std::string_view name, End end, std::string_view crash);
  void close_all(std::string_view crash);
  void keep(TestResult result);

  bool started_ = false;
  bool hashes_ = false;  // "# " indents
  Source source_ = Source::Program;
  std::vector<Level> levels_;
  std::vector<TestResult> results_;
  std::size_t kept_ = 0;  // bytes
};

}  // namespace martlet
