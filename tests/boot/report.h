#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/boot/guest.h"

namespace martlet::test {

/// What a guest booted with martlet.test=report says about itself.
class Report {
 public:
  explicit Report(Ended ended);

  [[nodiscard]] const Ended& ended() const noexcept { return ended_; }
  /// The lines between "BEGIN name" and "END name"; empty where the guest got not so far.
  [[nodiscard]] const std::vector<std::string>& section(const std::string& name) const;
  /// Of /proc/cpuinfo: one table of "apicid" and the like for each CPU.
  [[nodiscard]] std::vector<std::map<std::string, std::string>> cpus() const;
  /// Of /proc/meminfo, in KiB.
  [[nodiscard]] std::uint64_t memory_total_kib() const;
  /// The kernel's messages of level 4 (warning) and worse.
  [[nodiscard]] std::vector<std::string> complaints() const;
  /// Those of them that have no known reason; a trace is one.
  [[nodiscard]] std::vector<std::string> unexplained_complaints() const;
  /// The kernel's messages, without level and time.
  [[nodiscard]] std::vector<std::string> messages() const;

 private:
  Ended ended_;
  std::map<std::string, std::vector<std::string>> sections_;
};

/// A range of /proc/iomem, at the top level.
struct IoMemory {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::string name;
};
[[nodiscard]] std::vector<IoMemory> top_level_ranges(const std::vector<std::string>& iomem);

/// The count before "exits" in the line of --stats that begins with `name`.
[[nodiscard]] std::optional<std::uint64_t> exits_of(std::string_view statistics, std::string_view name);

}  // namespace martlet::test
