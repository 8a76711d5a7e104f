#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "vmm/debug/finding.h"
#include "vmm/debug/printk.h"

namespace martlet {

/// Reads along on one console, line by line, for what the kernel says of itself. Words count only where the kernel
/// says them: at a line's beginning, behind its time stamp once it was seen to print any.
class SplatWatch {
 public:
  static constexpr std::ptrdiff_t kMostOfASeverity = 100;

  explicit SplatWatch(ConsoleName console) : console_{console} {}

  /// Adds to `findings` what `line` begins; what follows it tells where it was. Nothing is added twice that both
  /// consoles say, or `dmesg` once more.
  void hear(const PrintkLine& line, std::uint64_t number, std::chrono::milliseconds now,
            std::vector<Finding>& findings);

  /// A panic was said to its end: nothing more comes, except for a reset.
  [[nodiscard]] bool panic_is_over() const noexcept { return panic_is_over_; }

 private:
  void begin(Finding finding, std::vector<Finding>& findings);
  void follow(std::string_view text, Finding& finding);

  ConsoleName console_;
  bool stamps_ = false;  // the kernel prints them
  std::uint64_t last_stamp_ = 0;
  std::optional<std::size_t> open_;  // the finding whose report this is
  std::size_t lines_ = 0;            // of it
  bool located_ = false;             // its registers were printed: a death from now on is another one
  bool in_panic_ = false;            // its trace comes below panic()'s own frame
  bool panicked_ = false;
  bool panic_is_over_ = false;
};

}  // namespace martlet
