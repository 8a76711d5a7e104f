#pragma once

#include <string>

#include "vmm/debug/verdict.h"

namespace martlet {

/// The verdict as JUnit's XML, as Jenkins, GitLab and GitHub's actions read it: the boot itself and each --expect and
/// --forbid as a test of suite "martlet", then the tests that the guest told of, a suite for each of theirs.
[[nodiscard]] std::string to_junit(const Verdict& verdict);

}  // namespace martlet
