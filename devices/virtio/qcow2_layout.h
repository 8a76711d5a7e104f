#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace martlet::virtio {

/// Clusters of the file in a row, by number.
struct ClusterRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

/// Which clusters of the file hold metadata: no data may be read from there or written to, whatever a table says.
class Qcow2Layout {
 public:
  enum class Kind { L2, Refcounts };

  /// Of the header, the L1 tables and the like.
  void add(const ClusterRun& fixed) { fixed_.push_back(fixed); }
  void move(std::uint64_t first, const ClusterRun& to) noexcept {
    for (auto& run : fixed_) {
      run = run.first == first ? to : run;
    }
  }
  void add(std::uint64_t cluster, Kind kind) { tables_[cluster] = kind; }
  void remove(std::uint64_t cluster) noexcept { tables_.erase(cluster); }

  [[nodiscard]] std::optional<Kind> table_at(std::uint64_t cluster) const noexcept {
    const auto found = tables_.find(cluster);
    return found == tables_.end() ? std::nullopt : std::optional{found->second};
  }
  [[nodiscard]] bool is_fixed(std::uint64_t cluster) const noexcept {
    for (const auto& run : fixed_) {
      if (cluster - run.first < run.count) {
        return true;
      }
    }
    return false;
  }
  [[nodiscard]] bool holds(std::uint64_t cluster) const noexcept {
    return is_fixed(cluster) || tables_.contains(cluster);
  }

 private:
  std::vector<ClusterRun> fixed_;  // a handful
  std::unordered_map<std::uint64_t, Kind> tables_;
};

}  // namespace martlet::virtio
