// A VM killed while it writes: what its ext4 had fsynced is there. Runs on fresh-ground.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

// Appends records to a log, each fsynced before it is told of; beside it files come and go, so that the
// journal has something to do. It goes on where the round before was killed.
constexpr std::string_view kRecorder = R"sh(
mount -t ext4 "$(disk crash)" /mnt || exit 2
(
  n=0
  while :; do
    n=$(((n + 1) % 50))
    mkdir -p /mnt/d$n && cp /bin/busybox /mnt/d$n/$n && rm -rf /mnt/d$((n * 7 % 50))
  done
) &
n=$(($(wc -c </mnt/log 2>/dev/null || echo 0) / 64))
while :; do
  n=$((n + 1))
  printf 'record %-56d\n' $n | dd of=/mnt/log oflag=append conv=notrunc,fsync 2>/dev/null || exit 3
  echo "synced $n"
done
)sh";

std::string record(unsigned number) { return fmt::format("record {:<56}\n", number); }

unsigned last_synced(const std::string& console) {
  const auto at = console.rfind("synced ", console.rfind('\n'));
  unsigned number = 0;
  if (at != std::string::npos) {
    std::from_chars(console.data() + at + 7, console.data() + console.size(), number);
  }
  return number;
}

/// Damage, if there is any once the journal has been replayed; the records in the log else.
std::string log_after_replay(const TempDir& directory, const std::string& disk) {
  const auto copy = directory.file("copy");
  output_of({"cp", "--sparse=always", disk, copy});
  output_of({"e2fsck", "-E", "journal_only", "-p", copy});
  const auto check = run({.command = {"e2fsck", "-f", "-n", copy}});
  EXPECT_EQ(check.exit_code, 0) << check;
  const auto log = directory.file("log");
  output_of({"debugfs", "-R", "dump /log " + log, copy});
  return read_file(log);
}

/// Rounds of boot, write, SIGKILL, check; each goes on with the disk as the one before left it.
void survive(std::string_view cache) {
  const auto* rounds = std::getenv("MARTLET_CRASH_ROUNDS");
  const TempDir directory;
  const auto disk = directory.file("disk");
  make_file(disk, 256ULL << 20U);
  output_of({"mke2fs", "-q", "-t", "ext4", disk});
  std::mt19937 random{std::random_device{}()};
  unsigned before = 0;
  for (int round = 0; round < (rounds != nullptr ? std::atoi(rounds) : 2); ++round) {
    RunningGuest running{{.more = {"-d", fmt::format("path={},serial=crash,cache={}", disk, cache)},
                          .script = std::string{kVirtioPrelude}.append(kRecorder)}};
    auto& process = running.process();
    const auto enough = before + 20 + random() % 30;
    ASSERT_TRUE(process.wait_for(fmt::format("synced {}\r\n", enough))) << running.wait();
    process.send_signal(SIGKILL);
    const auto ended = running.wait();
    EXPECT_EQ(ended.outcome.signal, SIGKILL);
    const auto synced = last_synced(ended.outcome.out);
    ASSERT_GE(synced, enough);

    const auto log = log_after_replay(directory, disk);
    for (unsigned i = 1; i <= synced; ++i) {
      ASSERT_EQ(log.substr((i - 1) * std::size_t{64}, 64), record(i)) << "round " << round << ", synced " << synced;
    }
    before = static_cast<unsigned>(log.size() / 64);
    ASSERT_LE(before, synced + 1) << "at most one record was under way";
  }
}

TEST(VirtioCrash, FsyncedRecordsSurviveInThePageCache) { survive("writeback"); }
TEST(VirtioCrash, FsyncedRecordsSurviveWithoutIt) { survive("direct"); }
// Flushes do nothing here, but the host's page cache outlives the process: only a host that goes down loses.
TEST(VirtioCrash, FsyncedRecordsSurviveThoughNothingIsFlushed) { survive("unsafe"); }

}  // namespace
}  // namespace martlet::test
