// git bisect with examples/bisect/run, over a history of guests.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

// Twelve commits: from the 8th on the guest fails; three, where a bisection looks first, do not build.
constexpr const char* kHistory = R"sh(
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main .
for commit in 1 2 3 4 5 6 7 8 9 10 11 12; do
  echo "$(( commit >= 8 ? 3 : 0 ))" > code
  case $commit in 6 | 9 | 10) echo no ;; *) echo yes ;; esac > builds
  echo $commit > number
  git add .
  git commit -qm "commit $commit"
done
git bisect start main main~11
BUILD='test "$(cat builds)" = yes' OPTIONS='-m 2M -a "code=$(cat code)" --timeout 60s' git bisect run "$0"
git bisect log
)sh";

TEST(BisectExample, FindsTheFirstBadCommitWithSkipsInBetween) {
  const TempDir directory;
  const auto ended = run({.command = {"bash", "-c", kHistory, MARTLET_EXAMPLES "/bisect/run"},
                          .directory = directory.path(),
                          .environment = {{"MARTLET", MARTLET_PROGRAM}, {"KERNEL", guest_file("exit")}}});
  EXPECT_EQ(ended.exit_code, 0) << ended;
  EXPECT_THAT(ended.out, ::testing::ContainsRegex("# first bad commit: \\[[0-9a-f]+\\] commit 8\n")) << ended;
  EXPECT_THAT(ended.out, HasSubstr("# skip: ")) << ended;
}

}  // namespace
}  // namespace martlet::test
