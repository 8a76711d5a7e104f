#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace martlet {

/// Durations in classes an eighth of an octave wide: a quantile is right within 13 %. Adding is a few instructions.
class Histogram {
 public:
  void add(std::uint64_t nanoseconds) noexcept {
    ++counts_[class_of(nanoseconds)];
    ++count_;
    most_ = std::max(most_, nanoseconds);
  }

  void add(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      counts_[i] += other.counts_[i];
    }
    count_ += other.count_;
    most_ = std::max(most_, other.most_);
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t most() const noexcept { return most_; }

  /// No more than `percent` of the durations are longer than this; 0 when there are none.
  [[nodiscard]] std::uint64_t quantile(unsigned percent) const noexcept {
    std::uint64_t left = (count_ * percent + 99) / 100;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (left <= counts_[i]) {
        return left == 0 ? 0 : std::min(longest_in(i), most_);
      }
      left -= counts_[i];
    }
    return most_;
  }

 private:
  static constexpr std::size_t kSteps = 8;     // a power of two
  static constexpr std::size_t kOctaves = 36;  // up to 9 minutes; what is longer counts as that

  static constexpr std::size_t class_of(std::uint64_t value) noexcept {
    if (value < kSteps) {
      return static_cast<std::size_t>(value);
    }
    const auto octave = static_cast<std::size_t>(std::bit_width(value / kSteps));
    return std::min(octave * kSteps + static_cast<std::size_t>(value >> (octave - 1)) % kSteps, kOctaves * kSteps - 1);
  }
  static constexpr std::uint64_t longest_in(std::size_t index) noexcept {
    const auto octave = index / kSteps;
    const auto step = index % kSteps;
    return octave == 0 ? step : ((kSteps + step + 1) << (octave - 1)) - 1;
  }

  std::array<std::uint32_t, kOctaves * kSteps> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t most_ = 0;
};

}  // namespace martlet
