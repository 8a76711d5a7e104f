#include "devices/virtio/disk_open.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "block_support.h"

namespace martlet::virtio {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string refusal(const DiskOptions& options) {
  EventLoop loop;
  auto message = host_error([&] { static_cast<void>(open_disk(loop, options)); });
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

TEST(ParseDisk, FillsTheOptions) {
  const auto disk = parse_disk(
      "a.img,readonly=on,serial=x-1,cache=direct,queues=2,rate=100M,burst=1M,iops=10,format=raw,block_size=4096");
  EXPECT_EQ(disk.path, "a.img");
  EXPECT_EQ(disk.access, DiskAccess::ReadOnly);
  EXPECT_EQ(disk.serial, "x-1");
  EXPECT_EQ(disk.cache, DiskCache::Direct);
  EXPECT_EQ(disk.queues, 2);
  EXPECT_EQ(disk.limits.bytes, 100ULL << 20U);
  EXPECT_EQ(disk.limits.operations, 10U);
  EXPECT_EQ(disk.format, DiskFormat::Raw);
  EXPECT_EQ(disk.block_size, 4096U);
  const auto qcow2 = parse_disk("a.qcow2,format=qcow2,backing=b.img,backing_format=raw");
  EXPECT_EQ(qcow2.format, DiskFormat::Qcow2);
  EXPECT_EQ(qcow2.backing, "b.img");
  EXPECT_EQ(qcow2.backing_format, DiskFormat::Raw);
  const auto plain = parse_disk("overlay=tmp,path=b.img");
  EXPECT_EQ(plain.path, "b.img");
  EXPECT_EQ(plain.overlay, "tmp");
  EXPECT_EQ(plain.access, DiskAccess::ReadWrite);
  EXPECT_EQ(plain.cache, DiskCache::Writeback);
}

TEST(ParseDisk, RefusesTheRest) {
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a.img,redonly=on")); }),
              HasSubstr("did you mean readonly?"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("readonly=on")); }), HasSubstr("which image?"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a.img,cache=none")); }), HasSubstr("writeback, direct"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a.img,serial=123456789012345678901")); }),
              HasSubstr("20 printable"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a.img,readonly,overlay=tmp")); }), HasSubstr("choose one"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a.img,backing=b.img")); }), HasSubstr("format=qcow2"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a,format=qcow2,backing_format=raw")); }),
              HasSubstr("backing=FILE"));
  EXPECT_THAT(host_error([] { static_cast<void>(parse_disk("a,format=qcow2,overlay=tmp")); }),
              HasSubstr("qemu-img create"));
  for (const auto* text : {"", "a.img,queues=0", "a.img,queues=65", "a.img,block_size=1024", "a.img,format=vmdk",
                           "a.img,serial=a b", "a.img,b.img"}) {
    EXPECT_THROW(static_cast<void>(parse_disk(text)), HostError) << text;
  }
}

TEST(CheckSerials, RefusesTwoOfAKind) {
  const std::array disks{parse_disk("a.img,serial=x"), parse_disk("b.img"), parse_disk("c.img"),
                         parse_disk("d.img,serial=x")};
  EXPECT_THAT(host_error([&] { check_serials(disks); }), AllOf(HasSubstr("a.img"), HasSubstr("d.img"), HasSubstr("x")));
  check_serials(std::span{disks}.first(3));
}

TEST(OpenDisk, RefusesWhatIsNoDiskInOneLine) {
  EXPECT_THAT(refusal({.path = "/nonexistent/disk.img"}),
              AllOf(HasSubstr("/nonexistent/disk.img"), HasSubstr("No such")));
  EXPECT_THAT(refusal({.path = "/tmp"}), HasSubstr("directory"));
  EXPECT_THAT(refusal({.path = "/dev/null"}), HasSubstr("neither file nor block device"));
  const TempFile empty{{}};
  EXPECT_THAT(refusal({.path = empty.path()}), AllOf(HasSubstr("is empty"), HasSubstr("truncate")));
  const TempFile odd{Bytes(1000)};
  EXPECT_THAT(refusal({.path = odd.path()}), HasSubstr("512-byte sectors"));
  const TempFile small{Bytes(512)};
  EXPECT_THAT(refusal({.path = small.path(), .block_size = 4096}), HasSubstr("block_size=512"));
}

TEST(OpenDisk, RefusesAQcow2ImageUnlessItIsMeantAsRaw) {
  Bytes bytes(4096);
  std::memcpy(bytes.data(), "QFI\xfb", 4);
  const TempFile image{bytes};
  EXPECT_THAT(refusal({.path = image.path()}),
              AllOf(HasSubstr("looks like qcow2"), HasSubstr("format=qcow2"), HasSubstr("format=raw")));
  EventLoop loop;
  EXPECT_EQ(open_disk(loop, {.path = image.path(), .format = DiskFormat::Raw})->shape().size, 4096U);
}

/// Another process that has `path` open until this goes.
class Holder {
 public:
  Holder(const std::string& path, DiskAccess access) {
    int ready[2];
    check(::pipe2(ready, O_CLOEXEC), "pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      char good = 'n';
      try {
        EventLoop loop;
        const auto disk = open_disk(loop, {.path = path, .access = access});
        good = 'y';
        static_cast<void>(!::write(ready[1], &good, 1));
        ::pause();
      } catch (const HostError&) {
        static_cast<void>(!::write(ready[1], &good, 1));
      }
      ::_exit(0);
    }
    char good = 0;
    EXPECT_EQ(::read(ready[0], &good, 1), 1);
    EXPECT_EQ(good, 'y');
    ::close(ready[0]);
    ::close(ready[1]);
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

TEST(OpenDisk, AWriterHasTheImageForItself) {
  const TempFile image{Bytes(4096)};
  const Holder writer{image.path(), DiskAccess::ReadWrite};
  const auto process = "process " + std::to_string(writer.pid());
  EXPECT_THAT(refusal({.path = image.path()}), HasSubstr(process));
  EXPECT_THAT(refusal({.path = image.path(), .access = DiskAccess::ReadOnly}), HasSubstr(process));
  EXPECT_THAT(refusal({.path = image.path(), .overlay = "tmp"}), HasSubstr(process));
}

TEST(OpenDisk, KnowsTheLocksOfQemu) {
  const TempFile image{Bytes(4096)};
  const auto hold = [&](off_t byte) {
    Fd file = open_file(image.path(), O_RDWR);
    struct flock lock {};
    lock.l_type = F_RDLCK;
    lock.l_start = byte;
    lock.l_len = 1;
    check(::fcntl(file.get(), F_OFD_SETLK, &lock), "lock");
    return file;
  };
  EventLoop loop;
  {
    const Fd writes = hold(101);
    EXPECT_THAT(refusal({.path = image.path(), .access = DiskAccess::ReadOnly}), HasSubstr("open for writing"));
    EXPECT_THAT(refusal({.path = image.path()}), HasSubstr("has it open"));
  }
  const Fd reads = hold(100);
  const Fd nobody_writes = hold(201);
  EXPECT_THAT(refusal({.path = image.path()}), HasSubstr("has it open"));
  EXPECT_TRUE(open_disk(loop, {.path = image.path(), .access = DiskAccess::ReadOnly}));
}

TEST(OpenDisk, ReadersShareTheImageAndKeepWritersOut) {
  const TempFile image{Bytes(4096)};
  EventLoop loop;
  std::unique_ptr<Disk> mine;
  {
    const Holder reader{image.path(), DiskAccess::ReadOnly};
    mine = open_disk(loop, {.path = image.path(), .access = DiskAccess::ReadOnly});
    const auto overlay = open_disk(loop, {.path = image.path(), .overlay = "tmp"});
    EXPECT_THAT(refusal({.path = image.path()}), HasSubstr("has it open"));
  }
  EXPECT_THAT(refusal({.path = image.path()}), HasSubstr("this very command"));
  mine.reset();
  mine = open_disk(loop, {.path = image.path()});  // the lock went with the last one
}

}  // namespace
}  // namespace martlet::virtio
