// Disks under unmodified kernels. Runs on fresh-ground, whose $TMPDIR knows O_DIRECT.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kDiskBytes = 24 * kMiB;

struct Case {
  std::string name;
  std::string kernel;
  std::string transport;
  unsigned queues = 1;
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.name; }

class VirtioBlock : public ::testing::TestWithParam<Case> {};

// Writes of many sizes at any place, up to 32 at once, each read back and compared; with several queues, from
// several CPUs. Then the whole disk's checksum, to compare with the file's.
constexpr std::string_view kVerify = R"sh(
for mode in writeback direct unsafe; do
  device=$(disk $mode)
  say queues-$mode ls -1 /sys/block/${device#/dev/}/mq
  tool fio --filename=$device --ioengine=libaio --direct=1 --rw=randwrite --bsrange=512-64k --blockalign=512 \
    --iodepth=32 --verify=crc32c --verify_fatal=1 --end_fsync=1 --randseed=1 --size=6m \
    --name=a --cpus_allowed=0 --name=b --offset=8m --cpus_allowed=$(($(nproc) - 1)) >/tmp/fio 2>&1 || {
    cat /tmp/fio
    exit 1
  }
  say sum-$mode sh -c "dd if=$device iflag=direct bs=1M 2>/dev/null | sha256sum"
done
kernel_says
)sh";

TEST_P(VirtioBlock, FioFindsWhatItWroteInEveryCacheMode) {
  const auto& parameters = GetParam();
  const TempDir directory;
  Guest guest{.kernel = parameters.kernel,
              .cpus = parameters.queues,
              .more = {"--transport", parameters.transport, "-d", tools_disk()},
              .script = std::string{kVirtioPrelude}.append(kVerify)};
  const std::vector<std::string> modes{"writeback", "direct", "unsafe"};
  for (const auto& mode : modes) {
    make_file(directory.file(mode), kDiskBytes);
    guest.more.insert(guest.more.end(), {"-d", fmt::format("path={},serial={},cache={},queues={}", directory.file(mode),
                                                           mode, mode, parameters.queues)});
  }
  const Report report{boot(guest)};
  expect_good(report);
  for (const auto& mode : modes) {
    EXPECT_EQ(report.section("queues-" + mode).size(), parameters.queues);
    EXPECT_THAT(report.section("sum-" + mode), ElementsAre(sha256_of(directory.file(mode)) + "  -")) << mode;
  }
  EXPECT_NE(sha256_of(directory.file("direct")), sha256_of("/dev/null"));
  EXPECT_THAT(report.section("rings"), Each("virtio_blk packed"));
  if (parameters.transport == "pci") {
    for (unsigned queue = 0; queue < parameters.queues; ++queue) {
      EXPECT_GE(interrupts(report, fmt::format("PCI-MSI.* virtio1-req\\.{}$", queue)), 1U);
    }
    // Enumeration and set-up only: doorbells are rung thousands of times, and KVM hears them.
    const auto exits = exits_of(report.ended().outcome.err, "pci bars");
    ASSERT_TRUE(exits) << report.ended();
    EXPECT_LT(*exits, 800U);
  } else {
    EXPECT_GE(interrupts(report, "IO-APIC.* virtio1$"), 1U);
  }
}

INSTANTIATE_TEST_SUITE_P(Stock, VirtioBlock,
                         ::testing::Values(Case{"Pci1Queue", "cloud-6.1", "pci", 1},
                                           Case{"Pci2Queues", "cloud-6.12", "pci", 2},
                                           Case{"Mmio1Queue", "full-6.1", "mmio", 1},
                                           Case{"Mmio2Queues", "cloud-6.1", "mmio", 2}),
                         [](const auto& a_case) { return a_case.param.name; });

std::uint64_t bytes_stored(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

constexpr std::string_view kKindsOfDisks = R"sh(
pattern() { dd if=/dev/urandom of=/tmp/pattern bs=1M count=4 2>/dev/null; }
pattern

# Discarded and zeroed ranges read as zeroes; their neighbours stay.
holes=$(disk holes)
dd if=/tmp/pattern of=$holes bs=1M oflag=direct 2>/dev/null
tool blkdiscard -o 1M -l 1M $holes || exit 2
tool blkdiscard -z -o 3M -l 512K $holes || exit 3
say holes sh -c "dd if=$holes iflag=direct bs=1M 2>/dev/null | sha256sum"

# Refused by the device, not by the driver's kindness alone.
readonly=$(disk readonly)
say readonly cat /sys/block/${readonly#/dev/}/ro
if dd if=/tmp/pattern of=$readonly bs=4k count=1 oflag=direct 2>/tmp/error; then exit 4; fi

overlay=$(disk overlay)
dd if=/tmp/pattern of=$overlay bs=1M seek=1 oflag=direct 2>/dev/null || exit 5
echo 3 >/proc/sys/vm/drop_caches
say overlay sh -c "dd if=$overlay bs=1M skip=1 count=4 iflag=direct 2>/dev/null | cmp - /tmp/pattern && echo same"
say beside sh -c "dd if=$overlay bs=1M count=1 iflag=direct 2>/dev/null | sha256sum"
kernel_says
)sh";

TEST(VirtioDisks, DiscardReadOnlyAndOverlay) {
  const TempDir directory;
  const auto holes = directory.file("holes");
  const auto readonly = directory.file("readonly");
  const auto overlay = directory.file("overlay");
  make_file(holes, 4 * kMiB);
  output_of({"dd", "if=/dev/urandom", "of=" + readonly, "bs=1M", "count=1", "status=none"});
  output_of({"dd", "if=/dev/urandom", "of=" + overlay, "bs=1M", "count=8", "status=none"});
  const auto before = std::vector{sha256_of(readonly), sha256_of(overlay)};
  const Report report{boot({.more = {"-d", tools_disk(), "-d", "path=" + holes + ",serial=holes", "-d",
                                     "path=" + readonly + ",serial=readonly,readonly=on", "-d",
                                     "path=" + overlay + ",serial=overlay,overlay=tmp"},
                            .script = std::string{kVirtioPrelude}.append(kKindsOfDisks)})};
  expect_good(report);
  EXPECT_THAT(report.section("holes"), ElementsAre(sha256_of(holes) + "  -"));
  EXPECT_EQ(read_file(holes).substr(kMiB, kMiB), std::string(kMiB, '\0'));
  EXPECT_EQ(read_file(holes).substr(3 * kMiB, kMiB / 2), std::string(kMiB / 2, '\0'));
  EXPECT_LE(bytes_stored(holes), 3 * kMiB + kMiB / 2) << "what was discarded costs the host nothing";
  EXPECT_THAT(report.section("readonly"), ElementsAre("1"));
  EXPECT_THAT(report.section("overlay"), ElementsAre("same"));
  EXPECT_THAT(report.section("beside"),
              ElementsAre(output_of({"sh", "-c", "head -c 1M \"$0\" | sha256sum", overlay}).substr(0, 64) + "  -"));
  EXPECT_EQ((std::vector{sha256_of(readonly), sha256_of(overlay)}), before);
}

constexpr std::string_view kVerifyQcow2 = R"sh(
device=$(disk it)
tool fio --filename=$device --ioengine=libaio --direct=1 --rw=randwrite --bsrange=512-64k --blockalign=512 \
  --iodepth=32 --verify=crc32c --verify_fatal=1 --end_fsync=1 --randseed=2 --size=4m --name=a --name=b --offset=6m \
  >/tmp/fio 2>&1 || {
  cat /tmp/fio
  exit 1
}
tool blkdiscard -o 1M -l 1M $device || exit 2
say sum sh -c "dd if=$device iflag=direct bs=1M 2>/dev/null | sha256sum"
kernel_says
)sh";

TEST(VirtioDisks, Qcow2OverABackingFileIsWhatQemuReads) {
  const TempDir directory;
  const auto base = directory.file("base");
  const auto top = directory.file("top.qcow2");
  output_of({"dd", "if=/dev/urandom", "of=" + base, "bs=1M", "count=8", "status=none"});
  const auto before = sha256_of(base);
  output_of({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, "12M"});
  const Report report{boot(
      {.cpus = 2,
       .more = {"-d", tools_disk(), "-d", fmt::format("path={},format=qcow2,backing={},serial=it,queues=2", top, base)},
       .script = std::string{kVirtioPrelude}.append(kVerifyQcow2)})};
  expect_good(report);
  output_of({"qemu-img", "check", "-q", top});
  output_of({"qemu-img", "convert", "-O", "raw", top, directory.file("raw")});
  EXPECT_THAT(report.section("sum"), ElementsAre(sha256_of(directory.file("raw")) + "  -"));
  EXPECT_EQ(sha256_of(base), before);
}

TEST(VirtioDisks, ABlockDevice) {
  const auto* const names = std::getenv("MARTLET_BLOCK_DEVICES");
  if (names == nullptr) {
    GTEST_SKIP() << "$MARTLET_BLOCK_DEVICES names none that may be written to";
  }
  std::istringstream words{names};
  std::string cached;
  std::string direct;
  std::string mounted;
  words >> cached >> direct >> mounted;
  const Report report{boot({.more = {"-d", tools_disk(), "-d", "path=" + cached + ",serial=cached", "-d",
                                     "path=" + direct + ",serial=direct,cache=direct"},
                            .script = std::string{kVirtioPrelude}.append(R"sh(
    dd if=/dev/urandom of=/tmp/pattern bs=1M count=4 2>/dev/null
    for it in cached direct; do
      device=$(disk $it)
      block=/sys/block/${device#/dev/}
      say shape-$it cat $block/size $block/queue/logical_block_size $block/queue/physical_block_size
      dd if=/tmp/pattern of=$device bs=1M oflag=direct conv=fsync 2>/dev/null || exit 1
      tool blkdiscard -o 1M -l 1M $device || exit 2  # a hint
      tool blkdiscard -z -o 2M -l 512K $device || exit 3
      last=$(($(cat $block/size) - 1))
      echo "the end of $it" | dd of=$device seek=$last conv=sync,fsync oflag=direct 2>/dev/null || exit 4
      say end-$it sh -c "dd if=$device skip=$last iflag=direct 2>/dev/null | grep -ao 'the end of $it'"
      say sum-$it sh -c "dd if=$device iflag=direct bs=1M count=4 2>/dev/null | sha256sum"
    done
    kernel_says
  )sh")})};
  expect_good(report);
  for (const auto& [name, device] : {std::pair{"cached", cached}, {"direct", direct}}) {
    const auto told = [&](const std::string& option) {
      auto line = output_of({"blockdev", option, device});
      line.pop_back();
      return line;
    };
    EXPECT_THAT(report.section(fmt::format("shape-{}", name)),
                ElementsAre(told("--getsz"), told("--getss"), told("--getpbsz")));
    EXPECT_THAT(report.section(fmt::format("end-{}", name)), ElementsAre(fmt::format("the end of {}", name)));
    EXPECT_THAT(report.section(fmt::format("sum-{}", name)),
                ElementsAre(output_of({"sh", "-c", "head -c 4M \"$0\" | sha256sum", device}).substr(0, 64) + "  -"));
    EXPECT_EQ(output_of({"sh", "-c", "tail -c +$((2 * 1024 * 1024 + 1)) \"$0\" | head -c 512K", device}),
              std::string(kMiB / 2, '\0'));
  }
  const auto refused = boot({.more = {"-d", mounted}}).outcome;
  EXPECT_EQ(refused.exit_code, 125) << refused;
  EXPECT_THAT(refused.err, HasSubstr("disk " + mounted + ": it is mounted or otherwise in use here"));
}

/// A file system that is soon full; gone with the test.
class SmallFileSystem {
 public:
  explicit SmallFileSystem(std::string at) : path_{std::move(at)} {
    std::filesystem::create_directory(path_);
    output_of({"mount", "-t", "tmpfs", "-o", "size=8M", "small", path_});
  }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;
  ~SmallFileSystem() { output_of({"umount", path_}); }
  [[nodiscard]] std::string file(std::string_view name) const { return path_ + "/" + std::string{name}; }

 private:
  std::string path_;
};

// Disks of 16 MiB, in blocks of 1 MiB that are told apart. The kernel's messages stay out of the report's sections.
constexpr std::string_view kBlocks = R"sh(
dmesg -n 1
blocks=$(seq 0 15)
for n in $blocks; do yes "block $n" | head -c 1048576 >/tmp/block$n; done
put() { dd if=/tmp/block$2 of=$1 bs=1M seek=$2 oflag=direct conv=fsync 2>/dev/null; }
again() { put $1 0 && echo yes; }
written() { for n in $blocks; do put $1 $n && echo $n; done; }
there() { for n in $blocks; do dd if=$1 bs=1M skip=$n count=1 iflag=direct 2>/dev/null | cmp -s - /tmp/block$n && echo $n; done; }
)sh";

TEST(VirtioDisks, AFullHostLosesNothingAcknowledged) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root may mount a small file system";
  }
  const TempDir directory;
  const SmallFileSystem for_raw{directory.file("1")};
  const SmallFileSystem for_overlay{directory.file("2")};
  const SmallFileSystem for_qcow2{directory.file("3")};
  make_file(for_raw.file("raw"), 16 * kMiB);
  make_file(directory.file("base"), 16 * kMiB);
  output_of({"qemu-img", "create", "-q", "-f", "qcow2", for_qcow2.file("qcow2"), "16M"});
  const std::vector<std::string> disks{
      "-d", fmt::format("path={},serial=raw", for_raw.file("raw")),
      "-d", fmt::format("path={},serial=overlay,overlay={}", directory.file("base"), for_overlay.file("overlay")),
      "-d", fmt::format("path={},serial=qcow2,format=qcow2", for_qcow2.file("qcow2"))};
  const std::vector<std::string> names{"raw", "overlay", "qcow2"};
  const Report full{boot({.more = disks, .script = std::string{kVirtioPrelude}.append(kBlocks).append(R"sh(
    for it in raw overlay qcow2; do
      device=$(disk $it)
      say written-$it written $device
      say there-$it there $device
      say again-$it again $device
    done
    kernel_says
  )sh")})};
  EXPECT_EQ(full.ended().outcome.exit_code, 0) << full.ended();
  EXPECT_THAT(full.unexplained_complaints(), Each(AnyOf(HasSubstr("I/O error"), HasSubstr("callbacks suppressed"))));
  for (const auto& name : names) {
    const auto& written = full.section("written-" + name);
    EXPECT_GE(written.size(), 4U) << name;
    EXPECT_LE(written.size(), 8U) << name << ": more than there is room for";
    EXPECT_THAT(full.section("again-" + name), ElementsAre("yes")) << name << ": where there is room";
    EXPECT_THAT(full.section("there-" + name), IsSupersetOf(written)) << name;
  }
  // And for whoever looks later, with no more room than before.
  const Report later{boot({.more = disks, .script = std::string{kVirtioPrelude}.append(kBlocks).append(R"sh(
    for it in raw overlay qcow2; do say there-$it there $(disk $it); done
    kernel_says
  )sh")})};
  expect_good(later);
  for (const auto& name : names) {
    EXPECT_THAT(later.section("there-" + name), IsSupersetOf(full.section("written-" + name))) << name;
  }
  EXPECT_THAT(run({.command = {"qemu-img", "check", "-q", for_qcow2.file("qcow2")}}).exit_code, AnyOf(0, 3));
}

TEST(VirtioDisks, ResizeWhileTheGuestRuns) {
  const TempDir directory;
  const auto disk = directory.file("disk");
  make_file(disk, 4 * kMiB);
  RunningGuest running{
      {.more = {"-d", "path=" + disk + ",serial=it"}, .script = std::string{kVirtioPrelude}.append(R"sh(
    device=$(disk it)
    becomes() { await grep -qx $1 /sys/block/${device#/dev/}/size; }
    becomes 8192
    echo "it has 4 MiB"
    becomes 16384
    echo the end | dd of=$device seek=16383 conv=sync oflag=direct || exit 2
    echo "it has 8 MiB"
    becomes 2048
    ! dd if=$device skip=2048 count=1 iflag=direct | grep . || exit 3
    kernel_says
  )sh")}};
  auto& process = running.process();
  ASSERT_TRUE(process.wait_for("it has 4 MiB")) << running.wait();
  std::filesystem::resize_file(disk, 8 * kMiB);
  process.send_signal(SIGWINCH);
  ASSERT_TRUE(process.wait_for("it has 8 MiB")) << running.wait();
  EXPECT_EQ(read_file(disk).substr(8 * kMiB - 512, 8), "the end\n");
  std::filesystem::resize_file(disk, kMiB);
  process.send_signal(SIGWINCH);
  expect_good(Report{running.wait()});
}

}  // namespace
}  // namespace martlet::test
