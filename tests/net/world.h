#pragma once
// Hosts of a test's own, each a network namespace, and the wires between them.

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "net/switch.h"
#include "tests/support/namespace.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet::test {

/// What a shell command prints. Its failure is the test's.
inline std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, decltype([](FILE* it) { EXPECT_EQ(::pclose(it), 0); })> pipe{
      ::popen(command.c_str(), "r")};
  std::string all;
  std::array<char, 4096> part{};
  for (std::size_t got = 1; got > 0; all.append(part.data(), got)) {
    got = std::fread(part.data(), 1, part.size(), pipe.get());
  }
  return all;
}

/// A network namespace besides the one that the test is in.
class Namespace {
 public:
  Namespace() : home_{open_file(kMine, O_RDONLY)} {
    check(::unshare(CLONE_NEWNET), "unshare");
    there_ = open_file(kMine, O_RDONLY);
    run_shell("ip link set lo up");
    enter(home_);
  }

  /// As `ip link set … netns` has it.
  [[nodiscard]] std::string path() const { return fmt::format("/proc/{}/fd/{}", ::getpid(), there_.get()); }
  /// What `body` returns, done there.
  template <class Body>
  auto inside(Body body) const {
    enter(there_);
    const struct Return {
      const Fd& home;
      ~Return() { enter(home); }
    } back{home_};
    return body();
  }
  void run(const std::string& command) const {
    inside([&] { run_shell(command); });
  }

 private:
  static constexpr const char* kMine = "/proc/self/ns/net";
  static void enter(const Fd& there) { check(::setns(there.get(), CLONE_NEWNET), "setns"); }

  Fd home_;
  Fd there_;
};

/// A mount namespace in which this is an empty directory.
inline void hide(const std::string& directory) {
  check(::unshare(CLONE_NEWNS), "unshare");
  run_shell("mount --make-rprivate / && mkdir -p " + directory + " && mount -t tmpfs none " + directory);
}

/// All that `ip` tells of addresses and routes. What runs by itself is left out: remaining lifetimes, and which
/// interface's equal route comes first.
inline std::vector<std::string> addresses_and_routes() {
  std::vector<std::string> all;
  for (const auto* what : {"addr", "-4 route show table all", "-6 route show table all"}) {
    for (auto& entry : nlohmann::json::parse(output_of(fmt::format("ip -j {}", what)))) {
      if (entry.contains("addr_info")) {
        for (auto& address : entry["addr_info"]) {
          for (const auto* life : {"valid_life_time", "preferred_life_time"}) {
            address[life] = address[life] == 4294967295U ? "forever" : "limited";
          }
        }
      }
      if (entry.contains("expires")) {
        entry["expires"] = "limited";
      }
      all.push_back(entry.dump());
    }
  }
  std::ranges::sort(all);
  return all;
}

/// What is in only one of two such lists.
inline std::string difference(const std::vector<std::string>& before, const std::vector<std::string>& after) {
  std::string text;
  const auto without = [&](const auto& all, const auto& others, const char* sign) {
    for (const auto& line : all) {
      text += std::ranges::binary_search(others, line) ? "" : fmt::format("{} {}\n", sign, line);
    }
  };
  without(before, after, "-");
  without(after, before, "+");
  return text;
}

}  // namespace martlet::test
