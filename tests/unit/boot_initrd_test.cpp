#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "boot/cpio.h"
#include "boot/initrd.h"
#include "boot/placement.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr GuestAddr kFloor{2 * kMiB};
constexpr GuestAddr kCeiling{64 * kMiB};

struct stat lstat_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

class BootInitrd : public testing::Test {
 protected:
  std::optional<GuestRange> load(const InitrdRequest& request, GuestAddr floor = kFloor, GuestAddr ceiling = kCeiling) {
    return load_initrd(guest_, request, floor, ceiling);
  }
  std::string refusal(const InitrdRequest& request, GuestAddr floor = kFloor) {
    return error_of([&] { static_cast<void>(load(request, floor)); });
  }
  std::string text(const GuestRange& range) {
    const auto bytes = guest_.slice(range.start, range.size).value();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  FileDir dir_;
  GuestMemory guest_ = make_guest(64 * kMiB);
};

TEST_F(BootInitrd, NothingWasAskedFor) { EXPECT_FALSE(load({})); }

TEST_F(BootInitrd, LiesAsHighAsItFits) {
  const auto range = load({.files = {dir_.write("a", std::string(5000, 'a'))}});
  ASSERT_TRUE(range);
  EXPECT_EQ(*range, (GuestRange{GuestAddr{64 * kMiB - 8192}, 5000}));
  EXPECT_EQ(text(*range), std::string(5000, 'a'));
}

TEST_F(BootInitrd, OurOwnFilesComeLast) {
  const std::string program = "12345";
  const CpioFiles own{.directory = ".ours",
                      .files = {{.name = "program", .permissions = 0755, .data = std::as_bytes(std::span{program})},
                                {.name = "empty", .permissions = 0600, .data = {}}}};
  const auto file = dir_.write("a", "xyz");
  const auto range = load({.files = {file}, .own = own, .custom_init = true});
  ASSERT_TRUE(range);
  EXPECT_EQ(range->size, 4 + own.size());
  EXPECT_EQ(text(*range).substr(0, 4), std::string("xyz\0", 4));
  const auto unpacked = dir_ / "unpacked";
  fs::create_directory(unpacked);
  dir_.write("own.cpio", text(*range).substr(4));
  ASSERT_EQ(std::system(("cd " + unpacked + " && cpio -idm --quiet < ../own.cpio").c_str()), 0);
  EXPECT_EQ(lstat_of(unpacked + "/.ours").st_mode, S_IFDIR | 0755U);
  EXPECT_EQ(lstat_of(unpacked + "/.ours/program").st_mode, S_IFREG | 0755U);
  EXPECT_EQ(lstat_of(unpacked + "/.ours/program").st_size, 5);
  EXPECT_EQ(lstat_of(unpacked + "/.ours/empty").st_mode, S_IFREG | 0600U);
  EXPECT_EQ(lstat_of(unpacked + "/.ours/empty").st_size, 0);
}

TEST_F(BootInitrd, CeilingNeedNotBeAPage) {
  EXPECT_EQ(load({.files = {dir_.write("a", "x")}}, kFloor, GuestAddr{0x3000fff})->start, GuestAddr{0x2fff000});
}

TEST_F(BootInitrd, PartsStartAtMultiplesOfFour) {
  const auto range = load({.files = {dir_.write("a", "12345"), dir_.write("b", "6789"), dir_.write("c", "x")}});
  EXPECT_EQ(text(*range), std::string("12345\0\0\0006789x", 13));
}

TEST_F(BootInitrd, StaysBelowTheHole) {
  const auto guest = make_guest(5 * kGiB);
  const auto range = load_initrd(guest, {.files = {dir_.write("a", "x")}}, kFloor, layout::kAbove4G);
  EXPECT_EQ(range->start, GuestAddr{3 * kGiB - kPageSize});
}

TEST_F(BootInitrd, FilesThatCannotBeLoaded) {
  EXPECT_THAT(refusal({.files = {dir_ / "absent"}}), AllOf(HasSubstr("cannot open"), HasSubstr("absent")));
  EXPECT_THAT(refusal({.files = {dir_.path()}}), HasSubstr("is a directory; expected an initrd"));
  EXPECT_THAT(refusal({.files = {dir_.write("empty", "")}}), HasSubstr("is empty; expected an initrd"));
}

TEST_F(BootInitrd, LargerThanMemory) {
  const auto path = dir_.write("big", "x");
  fs::resize_file(path, 100 * kMiB);
  EXPECT_EQ(refusal({.files = {path}}),
            "the initrd needs 100.0 MiB, and 62.0 MiB are free above the kernel: use -m 128M or more");
  fs::resize_file(path, 31 * kMiB + 1);
  EXPECT_THAT(refusal({.files = {path, path}}), HasSubstr("the initrd needs 62.0 MiB, and 62.0 MiB are free"));
  fs::resize_file(path, 1ULL << 42U);  // sparse: sums must not wrap
  EXPECT_THAT(refusal({.files = {path, path, path}}), HasSubstr("which more memory cannot change: use a smaller one"));
  EXPECT_THAT(refusal({.files = {dir_.write("a", "x")}}, GuestAddr{70 * kMiB}), HasSubstr("0.0 MiB are free above"));
}

TEST_F(BootInitrd, MoreMemoryIsNotAdvisedWhereTheKernelSetsTheLimit) {
  const auto guest = make_guest(5 * kGiB);
  const auto path = dir_.write("big", "x");
  fs::resize_file(path, kGiB);
  EXPECT_THAT(error_of([&] {
                static_cast<void>(load_initrd(guest, {.files = {path}}, GuestAddr{kGiB + 1}, GuestAddr{2 * kGiB}));
              }),
              HasSubstr("which more memory cannot change"));
}

TEST_F(BootInitrd, RootComesLast) {
  dir_.write("root/init", "#!/bin/sh\n");
  fs::permissions(dir_ / "root/init", fs::perms{0755});
  const auto range = load({.files = {dir_.write("a", "12345")}, .root = dir_ / "root"});
  const auto all = text(*range);
  EXPECT_EQ(all.substr(0, 14), std::string("12345\0\0\000070701", 14));
  EXPECT_EQ(all.size() % 4, 0U);
}

TEST_F(BootInitrd, RootNeedsAnInit) {
  fs::create_directory(dir_ / "root");
  EXPECT_THAT(refusal({.root = dir_ / "root"}),
              HasSubstr("root has no program /init, which the kernel runs first: add"));
  dir_.write("root/init", "not executable");
  EXPECT_THAT(refusal({.root = dir_ / "root"}), HasSubstr("make it executable"));
  EXPECT_TRUE(load({.root = dir_ / "root", .custom_init = true}));
  EXPECT_TRUE(load({.files = {dir_.write("a", "x")}, .root = dir_ / "root"}));
  fs::remove(dir_ / "root/init");
  fs::create_symlink("/sbin/init", dir_ / "root/init");
  EXPECT_TRUE(load({.root = dir_ / "root"}));
}

TEST_F(BootInitrd, RootThatIsNoDirectory) {
  EXPECT_THAT(refusal({.root = dir_ / "absent"}), HasSubstr("cannot open"));
  EXPECT_THAT(refusal({.root = dir_.write("file", "x")}), HasSubstr("is not a directory; --root packs a directory"));
}

TEST_F(BootInitrd, CpioUnpacksWhatWasPacked) {
  const bool is_root = ::geteuid() == 0;
  const auto root = dir_ / "root";
  dir_.write("root/init", "#!/bin/sh\nexec sh\n");
  fs::permissions(root + "/init", fs::perms{04755});
  dir_.write("root/bin/busybox", std::string(70001, 'b'));
  fs::create_hard_link(root + "/bin/busybox", root + "/bin/ash");
  fs::create_hard_link(root + "/bin/busybox", root + "/sh");
  fs::create_symlink("bin/busybox", root + "/link");
  fs::create_symlink("/no/where", root + "/dangling");
  fs::create_directory(root + "/tmp");
  ::chmod((root + "/tmp").c_str(), 01777);
  dir_.write("root/empty", "");
  dir_.write("root/odd name\n\xff", "odd");
  ASSERT_EQ(::mkfifo((root + "/fifo").c_str(), 0640), 0);
  if (is_root) {
    ASSERT_EQ(::mknod((root + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
    ASSERT_EQ(::mknod((root + "/disk").c_str(), S_IFBLK | 0660, makedev(259, 70000)), 0);
    ASSERT_EQ(::lchown((root + "/empty").c_str(), 1234, 5678), 0);
  }
  const timespec times[2] = {{1234567890, 0}, {1234567890, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (root + "/empty").c_str(), times, 0), 0);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX};
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", root.c_str());
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(listener);

  const auto range = load({.root = root});
  dir_.write("archive", text(*range));
  fs::create_directory(dir_ / "out");
  const auto cpio =
      run("cd " + dir_ / "out && cpio -idm --quiet" + (is_root ? "" : " --nonmatching dev/console") + " < ../archive");
  ASSERT_EQ(cpio.status, 0) << cpio.output;
  const auto out = dir_ / "out";
  const auto same = [&](const std::string& name) {
    const auto before = lstat_of(root + "/" + name);
    const auto after = lstat_of(out + "/" + name);
    EXPECT_EQ(after.st_mode, before.st_mode) << name;
    EXPECT_EQ(after.st_nlink, before.st_nlink) << name;
    EXPECT_EQ(after.st_uid, before.st_uid) << name;
    EXPECT_EQ(after.st_gid, before.st_gid) << name;
    EXPECT_EQ(after.st_rdev, before.st_rdev) << name;
    EXPECT_EQ(after.st_size, before.st_size) << name;
  };
  for (const auto* name :
       {"init", "bin", "bin/busybox", "bin/ash", "sh", "link", "dangling", "tmp", "empty", "odd name\n\xff", "fifo"}) {
    same(name);
  }
  EXPECT_EQ(read_file(out + "/bin/ash"), std::string(70001, 'b'));
  EXPECT_EQ(lstat_of(out + "/sh").st_ino, lstat_of(out + "/bin/busybox").st_ino);
  EXPECT_EQ(fs::read_symlink(out + "/dangling"), "/no/where");
  EXPECT_EQ(lstat_of(out + "/empty").st_mtime, 1234567890);
  EXPECT_FALSE(fs::exists(out + "/socket"));
  if (is_root) {
    same("null");
    same("disk");
    const auto console = lstat_of(out + "/dev/console");
    EXPECT_EQ(console.st_mode, S_IFCHR | 0600U);
    EXPECT_EQ(console.st_rdev, makedev(5, 1));
  }
}

std::string packed(const std::string& root) {
  const CpioTree tree{root};
  std::string archive(tree.size(), '\0');
  tree.write(std::as_writable_bytes(std::span{archive}));
  return archive;
}

/// How often `needle` occurs.
std::size_t count(const std::string& text, const std::string& needle) {
  std::size_t found = 0;
  for (auto at = text.find(needle); at != text.npos; at = text.find(needle, at + 1)) {
    ++found;
  }
  return found;
}

TEST(BootCpio, HardLinksCarryTheirDataOnceOnTheLast) {
  const FileDir dir;
  dir.write("a", "precious");
  fs::create_hard_link(dir / "a", dir / "b");
  fs::create_hard_link(dir / "a", dir / "c");
  const auto archive = packed(dir.path());
  EXPECT_EQ(count(archive, "precious"), 1U);
  EXPECT_GT(archive.find("precious"), archive.find(std::string("c\0", 2), archive.find(std::string("b\0", 2))));
}

TEST(BootCpio, LinksOutsideTheTreeDoNotCount) {
  const FileDir dir;
  dir.write("tree/a", "x");
  fs::create_hard_link(dir / "tree/a", dir / "outside");
  const auto archive = packed(dir / "tree");
  EXPECT_EQ(archive.substr(6 + 4 * 8, 8), "00000001");  // nlink
}

TEST(BootCpio, TheSameTreeGivesTheSameArchive) {
  const FileDir one;
  const FileDir two;
  for (const auto* dir : {&one, &two}) {
    const auto names = dir == &one ? std::array{"x", "a/b", "a/a"} : std::array{"a/a", "x", "a/b"};
    for (const auto* name : names) {
      dir->write(name, name);
    }
    const timespec times[2] = {{77, 0}, {77, 0}};
    for (const auto* name : {"x", "a/a", "a/b", "a"}) {
      ASSERT_EQ(::utimensat(AT_FDCWD, (*dir / name).c_str(), times, 0), 0);
    }
  }
  EXPECT_EQ(packed(one.path()), packed(two.path()));
}

TEST(BootCpio, OwnFilesBelongToRoot) {
  const FileDir dir;
  dir.write("file", "x");
  const auto archive = packed(dir.path());
  EXPECT_EQ(archive.substr(6 + 2 * 8, 16), "0000000000000000");  // uid and gid
}

TEST(BootCpio, ConsoleIsAddedOnlyWhereItIsMissing) {
  const FileDir dir;
  EXPECT_EQ(count(packed(dir.path()), "dev/console"), 1U);
  fs::create_directory(dir / "dev");
  EXPECT_EQ(count(packed(dir.path()), "dev/console"), 1U);
  dir.write("dev/console", "a file, and theirs");
  EXPECT_EQ(count(packed(dir.path()), "dev/console"), 1U);
  const FileDir linked;
  fs::create_symlink("elsewhere", linked / "dev");
  EXPECT_EQ(count(packed(linked.path()), "dev/console"), 0U);
}

TEST(BootCpio, FilesThatChangeAreAnError) {
  const FileDir dir;
  dir.write("log", "one line\n");
  const CpioTree tree{dir.path()};
  Bytes archive(tree.size());
  dir.write("log", "two lines\ntwo lines\n");
  EXPECT_THAT(error_of([&] { tree.write(archive); }), AllOf(HasSubstr("log changed while"), HasSubstr("try again")));
  for (const auto* text : {"", "8 bytes."}) {
    dir.write("log", text);
    EXPECT_THAT(error_of([&] { tree.write(archive); }), HasSubstr("log ends too early: it was cut short"));
  }
  fs::remove(dir / "log");
  EXPECT_THAT(error_of([&] { tree.write(archive); }), HasSubstr("cannot open"));
  fs::create_directory(dir / "log");
  EXPECT_THAT(error_of([&] { tree.write(archive); }), HasSubstr("cannot read"));
  fs::remove(dir / "log");
  ASSERT_EQ(::mkfifo((dir / "log").c_str(), 0600), 0);  // must not hang either
  EXPECT_THAT(error_of([&] { tree.write(archive); }), HasSubstr("cannot read"));
}

TEST(BootCpio, TreesMayBeAsDeepAsPathsAreLong) {
  const FileDir dir;
  std::string path = dir.path();
  while (path.size() < 4000) {
    path += "/d";
    ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
  }
  EXPECT_GT(packed(dir.path()).size(), 110U * 1900);
}

TEST(BootCpio, FilesOf4GiBAreRefused) {
  const FileDir dir;
  fs::resize_file(dir.write("huge", "x"), 4 * kGiB);
  EXPECT_THAT(error_of([&] { CpioTree{dir.path()}; }),
              HasSubstr("huge has 4294967296 bytes; an initramfs holds files below 4 GiB"));
}

TEST(BootCpio, UnreadableFilesAreCountedAndTheFirstIsNamed) {
  const FileDir dir;
  dir.write("a/secret", "x");
  dir.write("b", "x");
  dir.write("c/inside", "x");
  ::chmod((dir / "a/secret").c_str(), 0);
  ::chmod((dir / "b").c_str(), 0);
  ::chmod((dir / "c").c_str(), 0);
  ::chmod(dir.path().c_str(), 0755);
  std::string message;
  if (::geteuid() == 0) {  // whom no mode stops: look with other eyes
    ASSERT_EQ(::seteuid(65534), 0);
    message = error_of([&] { CpioTree{dir.path()}; });
    ASSERT_EQ(::seteuid(0), 0);
  } else {
    message = error_of([&] { CpioTree{dir.path()}; });
  }
  ::chmod((dir / "c").c_str(), 0700);
  EXPECT_EQ(message, "cannot read 3 files under " + dir.path() + ", the first is " + dir / "a/secret" +
                         " (Permission denied): make them readable, or run as their owner");
}

TEST(BootCpio, WhatIsMountedInsideIsLeftOut) {
  if (!fs::is_directory("/proc/self") || ::geteuid() != 0) {
    GTEST_SKIP() << "needs root to unshare a mount namespace";
  }
  const FileDir dir;
  fs::create_directory(dir / "proc");
  // In a child, so that the mount is gone afterwards.
  const auto pid = ::fork();
  if (pid == 0) {
    const bool mounted = std::system("true") == 0 && ::unshare(CLONE_NEWNS) == 0 &&
                         ::system(("mount --make-rprivate / && mount -t tmpfs none " + dir / "proc && echo hidden > " +
                                   dir / "proc/file")
                                      .c_str()) == 0;
    ::_exit(!mounted ? 77 : count(packed(dir.path()), "hidden") == 0 && count(packed(dir.path()), "proc") == 1 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  if (WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "may not mount here";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace martlet
