#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/boot/guest.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kCloud = "cloud-6.1";

void write_file(const std::string& path, std::string_view content) { std::ofstream{path} << content; }

/// Packs `directory` by cpio(1).
std::string packed(const TempDir& into, const std::string& directory, const std::string& name) {
  const auto file = into.file(name);
  const auto outcome =
      run({.command = {"sh", "-c", "cd \"$0\" && find . | cpio --quiet -o -H newc -R 0:0 > \"$1\"", directory, file}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome;
  return file;
}

Ended boot_initrds(const std::vector<std::string>& initrds, const std::string& append) {
  Guest guest{.append = "quiet " + append, .with_root = false};
  for (const auto& file : initrds) {
    guest.more.insert(guest.more.end(), {"-i", file});
  }
  return boot(guest);
}

TEST(Root, InitrdOfCpio) {
  const auto ended = boot_initrds({guest_file(kCloud, "root.cpio")}, "martlet.test=poweroff");
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_THAT(ended.outcome.out, HasSubstr("martlet-guest: poweroff"));
}

// A root by gzip, and over it a plain cpio with a script of its own: the later one's files win.
TEST(Root, InitrdsAreConcatenated) {
  const TempDir directory;
  const auto tree = directory.file("tree");
  std::filesystem::create_directory(tree);
  write_file(tree + "/script", "cat /etc/second && ls /bin/busybox && exit 21");
  std::filesystem::create_directory(tree + "/etc");
  write_file(tree + "/etc/second", "from the second\n");
  const auto ended =
      boot_initrds({guest_file(kCloud, "root.cpio.gz"), packed(directory, tree, "second.cpio")}, "martlet.test=script");
  EXPECT_EQ(ended.outcome.exit_code, 21) << ended;
  EXPECT_THAT(ended.outcome.out, HasSubstr("from the second"));
}

// --root comes last, after any initrd; modes, symbolic links, hard links and odd sizes arrive.
TEST(Root, DirectoryIsPackedAsItIs) {
  const TempDir directory;
  const auto tree = directory.file("tree");
  std::filesystem::create_directory(tree);
  write_file(tree + "/one", "1");
  write_file(tree + "/empty", "");
  write_file(tree + "/big", std::string(100'001, 'x'));
  std::filesystem::permissions(tree + "/one", std::filesystem::perms{04751});
  std::filesystem::create_hard_link(tree + "/one", tree + "/same");
  std::filesystem::create_symlink("one", tree + "/link");
  write_file(
      tree + "/script",
      "echo one $(stat -c '%a %h %s' /one) link $(readlink /link) empty $(stat -c %s /empty) big $(wc -c </big)\n"
      "[ $(stat -c %i /one) = $(stat -c %i /same) ] && echo one inode\n"
      "exit 22");
  const auto ended = boot({.append = "quiet martlet.test=script",
                           .more = {"-i", guest_file(kCloud, "root.cpio"), "--root", tree},
                           .with_root = false});
  EXPECT_EQ(ended.outcome.exit_code, 22) << ended;
  EXPECT_THAT(ended.outcome.out, HasSubstr("one 4751 2 1 link one empty 0 big 100001"));
  EXPECT_THAT(ended.outcome.out, HasSubstr("one inode"));
}

}  // namespace
}  // namespace martlet::test
