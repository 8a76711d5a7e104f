#pragma once
// Network namespaces of a test's own, and what it does there.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>

#include "vmm/base/error.h"

namespace martlet::test {

inline void run_shell(const std::string& command) { EXPECT_EQ(::system(command.c_str()), 0) << command; }
[[nodiscard]] inline bool shell_says(const std::string& command) { return ::system(command.c_str()) == 0; }

/// The host's own files for systemd-networkd are not these tests' to make and to delete.
inline void hide_networkd_files() {
  constexpr const char* kFolder = "/etc/systemd/network";
  if (::access(kFolder, F_OK) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0) {
    EXPECT_EQ(::mount("none", kFolder, "tmpfs", 0, nullptr), 0);
  }
}

/// Runs `body` in a child with a network namespace of its own; its failures become the test's.
inline void in_namespace(const std::function<void()>& body) {
  constexpr int kNoPrivilege = 77;
  constexpr int kSkipped = 78;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || ::access("/dev/net/tun", R_OK | W_OK) != 0) {
      ::_exit(kNoPrivilege);
    }
    hide_networkd_files();
    try {
      body();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    ::_exit(::testing::Test::HasFailure() ? 1 : ::testing::Test::IsSkipped() ? kSkipped : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == kNoPrivilege) {
    GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace, and /dev/net/tun";
  }
  if (WEXITSTATUS(status) == kSkipped) {
    GTEST_SKIP() << "skipped in the network namespace, see above";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0) << "failed in the network namespace, see above";
}

/// The HostError of `action`: one line.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const HostError& error) {
    EXPECT_EQ(std::string{error.what()}.find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "no error";
}

}  // namespace martlet::test
