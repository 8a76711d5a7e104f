#pragma once

#include <string>
#include <string_view>

#include "vmm/base/fd.h"

namespace martlet::test {

/// The user's side of a console other than stdio: a socket, a terminal.
class Line {
 public:
  explicit Line(Fd fd) : fd_{std::move(fd)} {}

  void type(std::string_view text) const;
  /// Reads until it has seen `text`, or for a minute.
  [[nodiscard]] bool wait_for(std::string_view text);
  [[nodiscard]] const std::string& seen() const noexcept { return seen_; }

 private:
  Fd fd_;
  std::string seen_;
};

/// Connects to a Unix socket that is about to be there.
[[nodiscard]] Fd connect_to(const std::string& path);

}  // namespace martlet::test
