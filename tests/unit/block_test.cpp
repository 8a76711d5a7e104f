#include "devices/virtio/block.h"

#include <gmock/gmock.h>

#include "block_support.h"

namespace martlet::virtio {
namespace {

using Kind = DiskRequest::Kind;
using Answers = FakeDisk::Answers;
using testing::ElementsAre;

struct BlockScript : testing::TestWithParam<Ring>, BlockGuest {
  BlockScript() : BlockGuest{GetParam()} {}
};
INSTANTIATE_TEST_SUITE_P(Rings, BlockScript, testing::Values(Ring::Split, Ring::Packed),
                         [](const auto& ring) { return ring.param == Ring::Split ? "Split" : "Packed"; });

TEST_P(BlockScript, ReadsAndWrites) {
  auto& fake = attach_fake(Answers::Later);
  const auto bytes = pattern(4096, 1);
  EXPECT_EQ(write(8, bytes), BlockStatus::Ok);
  const auto answer = read(8, 4096);
  EXPECT_EQ(answer.status, BlockStatus::Ok);
  EXPECT_EQ(answer.data, bytes);
  EXPECT_EQ(answer.written, 4097U);
  EXPECT_EQ(read(0, 512).data, Bytes(512));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), fake.bytes.begin() + 8 * 512));
  EXPECT_EQ(flush(), BlockStatus::Ok);
  EXPECT_THAT(fake.kinds, ElementsAre(Kind::Write, Kind::Read, Kind::Read, Kind::Flush));
}

TEST_P(BlockScript, TheDriverCutsRequestsAsItLikes) {
  auto& fake = attach_fake(Answers::Later);
  fake.bytes = pattern(kFakeSize, 2);
  const auto whole = header(BlockType::In, 3);
  const auto bytes = std::as_bytes(std::span{&whole, 1});
  // The header in three, data and status in one, and the other way round.
  driver.chain()
      .readable(bytes.first(1))
      .readable(bytes.subspan(1, 9))
      .readable(bytes.subspan(10))
      .writable(513)
      .submit();
  auto answer = finish();
  EXPECT_EQ(answer.status, BlockStatus::Ok);
  EXPECT_TRUE(std::equal(answer.data.begin(), answer.data.end(), fake.bytes.begin() + 3 * 512));
  // A header and its data in one, in an indirect table; the data of odd pieces.
  Bytes request(16 + 100);
  const auto out = header(BlockType::Out, 5);
  std::memcpy(request.data(), &out, sizeof(out));
  driver.chain().readable(request).readable(Bytes(411)).readable(Bytes(1)).writable(1).indirect().submit();
  EXPECT_EQ(finish().status, BlockStatus::Ok);
  EXPECT_TRUE(std::all_of(fake.bytes.begin() + 5 * 512, fake.bytes.begin() + 6 * 512,
                          [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_P(BlockScript, AnswersWithErrorsAndGoesOn) {
  auto& fake = attach_fake(Answers::Later);
  const std::uint64_t end = kFakeSize / kSector;
  EXPECT_EQ(read(end, 512).status, BlockStatus::IoError);
  EXPECT_EQ(read(end - 1, 1024).status, BlockStatus::IoError);
  EXPECT_EQ(read(~0ULL, 512).status, BlockStatus::IoError);
  EXPECT_EQ(read(~0ULL / 512, 1024).status, BlockStatus::IoError);
  EXPECT_EQ(read(1ULL << 55U, 512).status, BlockStatus::IoError);  // times 512 it is 0
  EXPECT_EQ(read(0, 511).status, BlockStatus::IoError);
  EXPECT_EQ(write(end - 1, Bytes(1024)), BlockStatus::IoError);
  EXPECT_EQ(write(0, Bytes(513)), BlockStatus::IoError);
  for (const std::uint32_t type : {2U, 3U, 5U, 14U, 16U, 0x8000'0000U, ~0U}) {
    driver.chain().readable(header(BlockType{type})).writable(512).writable(1).submit();
    EXPECT_EQ(finish().status, BlockStatus::Unsupported) << type;
  }
  driver.chain().readable(std::string_view{"too short"}).writable(1).submit();
  EXPECT_EQ(finish().status, BlockStatus::IoError);
  driver.chain().writable(1).submit();
  EXPECT_EQ(finish().status, BlockStatus::IoError);
  driver.chain().readable(header(BlockType::In)).submit();  // nowhere to put an answer
  EXPECT_EQ(finish().written, 0U);
  EXPECT_TRUE(fake.kinds.empty());

  fake.error = ENOSPC;
  EXPECT_EQ(write(0, Bytes(512)), BlockStatus::IoError);
  const auto failed = read(0, 512);
  EXPECT_EQ(failed.status, BlockStatus::IoError);
  EXPECT_EQ(failed.written, 0U);  // none of it is to be relied on
  fake.error = 0;
  EXPECT_EQ(write(end - 1, Bytes(512)), BlockStatus::Ok);
  EXPECT_EQ(driver.resets_wanted(), 0U);
  EXPECT_EQ(driver.in_flight(), 0U);
}

TEST_P(BlockScript, TellsItsSerialNumber) {
  attach_fake(Answers::AtOnce, {.serial = "martlet-0"});
  driver.chain().readable(header(BlockType::GetId)).writable(20).writable(1).submit();
  const auto answer = finish();
  EXPECT_EQ(answer.status, BlockStatus::Ok);
  EXPECT_EQ(answer.written, 21U);
  EXPECT_STREQ(reinterpret_cast<const char*>(answer.data.data()), "martlet-0");
  EXPECT_EQ(answer.data.back(), std::byte{0});
  driver.chain().readable(header(BlockType::GetId)).writable(3).writable(1).submit();
  EXPECT_EQ(finish().data.size(), 3U);
  driver.chain().readable(header(BlockType::GetId)).writable(100).writable(1).submit();
  const auto large = finish();
  EXPECT_EQ(large.written, 20U);
  EXPECT_EQ(large.data.at(20), std::byte{0xcc});  // as the driver left it
}

TEST_P(BlockScript, DiscardsAndWritesZeroes) {
  auto& fake = attach_fake(Answers::Later);
  fake.bytes = pattern(kFakeSize, 3);
  EXPECT_EQ(ranges(BlockType::Discard, {{.sector = 1, .sectors = 2}, {.sector = 5, .sectors = 1}}), BlockStatus::Ok);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sector = 7, .sectors = 1}, {.sector = 8, .sectors = 1, .flags = 1}}),
            BlockStatus::Ok);
  EXPECT_THAT(fake.kinds, ElementsAre(Kind::Discard, Kind::Discard, Kind::Zero, Kind::ZeroUnmap));
  const auto original = pattern(kFakeSize, 3);
  for (const std::size_t sector : {0U, 1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 9U}) {
    const bool zero = sector == 1 || sector == 2 || sector == 5 || sector == 7 || sector == 8;
    EXPECT_EQ(fake.bytes[sector * 512 + 9], zero ? std::byte{0} : original[sector * 512 + 9]) << sector;
  }
}

TEST_P(BlockScript, RefusesBadRanges) {
  auto& fake = attach_fake(Answers::Later);
  const auto end = static_cast<std::uint64_t>(kFakeSize / kSector);
  using R = BlockRange;
  EXPECT_EQ(ranges(BlockType::Discard, {}), BlockStatus::IoError);
  EXPECT_EQ(ranges(BlockType::Discard, {R{.sector = end, .sectors = 1}}), BlockStatus::IoError);
  EXPECT_EQ(ranges(BlockType::Discard, {R{.sector = ~0ULL, .sectors = 2}}), BlockStatus::IoError);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {R{.sector = 0, .sectors = ~0U}}), BlockStatus::IoError);
  EXPECT_EQ(ranges(BlockType::Discard, {R{.sectors = 1, .flags = 1}}), BlockStatus::Unsupported);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {R{.sectors = 1, .flags = 2}}), BlockStatus::Unsupported);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {R{.sectors = 1}, R{.sector = end - 1, .sectors = 2}}),
            BlockStatus::IoError);
  driver.chain().readable(header(BlockType::Discard)).readable(Bytes(17)).writable(1).submit();
  EXPECT_EQ(finish().status, BlockStatus::IoError);
  driver.chain().readable(header(BlockType::Discard)).readable(Bytes(17 * 16)).writable(1).submit();
  EXPECT_EQ(finish().status, BlockStatus::IoError);
  EXPECT_TRUE(fake.kinds.empty());
  // Sixteen are allowed, empty ones too.
  driver.chain().readable(header(BlockType::Discard)).readable(Bytes(16 * 16)).writable(1).submit();
  EXPECT_EQ(finish().status, BlockStatus::Ok);
}

TEST_P(BlockScript, ARangeThatFailsEndsTheRequest) {
  auto& fake = attach_fake(Answers::Later);
  fake.error = EIO;
  EXPECT_EQ(ranges(BlockType::Discard, {{.sectors = 1}, {.sector = 4, .sectors = 1}}), BlockStatus::IoError);
  EXPECT_EQ(fake.kinds.size(), 1U);
}

TEST_P(BlockScript, ReadOnlyIsReadOnly) {
  auto& fake = attach_fake(Answers::Later, {.access = DiskAccess::ReadOnly});
  EXPECT_EQ(block->features() & (kBlkReadOnly | kBlkDiscard | kBlkWriteZeroes), kBlkReadOnly);
  EXPECT_EQ(write(0, Bytes(512)), BlockStatus::IoError);
  EXPECT_EQ(ranges(BlockType::Discard, {{.sectors = 1}}), BlockStatus::Unsupported);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sectors = 1}}), BlockStatus::Unsupported);
  EXPECT_TRUE(fake.kinds.empty());
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
  EXPECT_EQ(flush(), BlockStatus::Ok);
}

TEST_P(BlockScript, WithoutFlushesAWriteIsOnTheDiskWhenItIsAnswered) {
  auto& fake = attach_fake(Answers::Later, {}, kBlkFlush | kBlkConfigWce);
  EXPECT_EQ(write(0, Bytes(512)), BlockStatus::Ok);
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
  EXPECT_THAT(fake.kinds, ElementsAre(Kind::Write, Kind::Flush, Kind::Read));
}

TEST_P(BlockScript, TheDriverMayTurnTheWriteCacheOff) {
  auto& fake = attach_fake(Answers::Later);
  EXPECT_EQ(config<std::uint8_t>(32), 1);
  const std::array off{std::byte{0}};
  block->write_config(32, off);
  EXPECT_EQ(config<std::uint8_t>(32), 0);
  EXPECT_EQ(write(0, Bytes(512)), BlockStatus::Ok);
  EXPECT_EQ(fake.kinds, (std::vector{Kind::Write, Kind::Flush}));
  block->write_config(0, Bytes(8, std::byte{0xff}));  // ignored
  EXPECT_EQ(config<std::uint64_t>(0), kFakeSize / kSector);
  block->stop();
  EXPECT_EQ(config<std::uint8_t>(32), 1);
}

TEST_P(BlockScript, ABatchIsOneCommitAndOneInterrupt) {
  auto& fake = attach_fake(Answers::AtOnce);
  const auto commits = fake.commits;
  for (std::uint64_t i = 0; i < 8; ++i) {
    driver.chain().readable(header(BlockType::In, i)).writable(512).writable(1).submit();
  }
  block->notified(0);
  EXPECT_EQ(fake.commits, commits + 1);
  EXPECT_EQ(driver.interrupts(), 1U);
  EXPECT_EQ(driver.in_flight(), 8U);  // used, not taken yet
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(take_answer()->status, BlockStatus::Ok);
  }
}

TEST_P(BlockScript, WhatComesMeanwhileIsAnsweredByTheSameInterrupt) {
  auto& fake = attach_fake(Answers::AtOnce);
  unsigned more = 3;
  const auto ask = [&] { driver.chain().readable(header(BlockType::In, 0)).writable(512).writable(1).submit(); };
  fake.meanwhile = [&] {
    if (more != 0) {
      --more;
      ask();
      ask();
    }
  };
  ask();
  block->notified(0);
  EXPECT_EQ(driver.interrupts(), 1U);
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(take_answer()->status, BlockStatus::Ok);
  }
}

TEST_P(BlockScript, ADriverThatNeverRunsDryIsInterruptedAllTheSame) {
  auto& fake = attach_fake(Answers::AtOnce);
  unsigned untold = 0;
  unsigned most = 0;
  unsigned interrupts = 0;
  fake.meanwhile = [&] {  // two answers are taken and two requests added, however often the disk is told to begin
    if (std::exchange(interrupts, driver.interrupts()) != driver.interrupts()) {
      untold = 0;
    }
    while (take_answer()) {
      most = std::max(most, ++untold);
    }
    driver.chain().readable(header(BlockType::In, 0)).writable(512).writable(1).submit();
    driver.chain().readable(header(BlockType::In, 0)).writable(512).writable(1).submit();
  };
  driver.chain().readable(header(BlockType::In, 0)).writable(512).writable(1).submit();
  block->notified(0);
  EXPECT_GT(driver.interrupts(), 1U);
  EXPECT_LE(most, 20U);
}

TEST_P(BlockScript, AnswersComeInWhateverOrderTheDiskHas) {
  auto& fake = attach_fake(Answers::Later);
  fake.bytes = pattern(kFakeSize, 4);
  std::map<std::uint16_t, std::size_t> sectors;
  for (std::size_t i = 0; i < 8; ++i) {
    sectors[driver.chain().readable(header(BlockType::In, i)).writable(512).writable(1).submit()] = i;
  }
  block->notified(0);
  while (fake.waiting() != 0) {
    fake.answer();
  }
  for (int i = 0; i < 8; ++i) {
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->data[0][77], fake.bytes[sectors.at(used->id) * 512 + 77]);
  }
}

TEST_P(BlockScript, StoppingWaitsForWhatIsInFlightAndCancelsIt) {
  auto& fake = attach_fake(Answers::Later);
  for (std::uint64_t i = 0; i < 4; ++i) {
    driver.chain().readable(header(BlockType::In, i)).writable(512).writable(1).submit();
  }
  driver.chain()
      .readable(header(BlockType::Discard))
      .readable(BlockRange{.sectors = 1})
      .readable(BlockRange{.sectors = 1})
      .writable(1)
      .submit();
  block->notified(0);
  EXPECT_EQ(fake.waiting(), 5U);
  block->stop_queue(0);
  EXPECT_EQ(fake.waiting(), 0U);
  EXPECT_EQ(fake.cancelled, 5U);
  EXPECT_EQ(fake.kinds.size(), 5U);  // the second range was never begun
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(take_answer());
  }
  block->stop_queue(0);  // not started: left alone
  block->notified(0);
  block->stop_queue(77);
  block->notified(77);
  // A reset heals everything.
  block->stop();
  start();
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
}

TEST_P(BlockScript, RequestsThatWaitAlreadyAreServedFromTheStart) {
  auto& fake = attach_fake(Answers::Later);
  block->stop();
  auto queue = driver.make_queue();
  driver.chain().readable(header(BlockType::In)).writable(512).writable(1).submit();
  block->start(driver.features() | block->features(), driver);
  block->start_queue(0, std::move(queue), driver.kick_fd());
  EXPECT_EQ(fake.waiting(), 1U);
}

TEST_P(BlockScript, ThrottledRequestsWaitAndAreDroppedWithTheQueue) {
  auto& fake = attach_fake(Answers::AtOnce, {.limits = {.bytes = 1, .burst = 1}});
  for (std::uint64_t i = 0; i < 4; ++i) {
    driver.chain().readable(header(BlockType::In, i)).writable(512).writable(1).submit();
  }
  block->notified(0);
  block->notified(0);
  EXPECT_EQ(fake.kinds.size(), 1U);  // and left a debt of minutes
  EXPECT_EQ(take_answer()->status, BlockStatus::Ok);
  EXPECT_FALSE(take_answer());
  block->stop_queue(0);
  EXPECT_EQ(fake.kinds.size(), 1U);
  const auto dropped = take_answer();  // the one that was taken; the others never were
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->written, 0U);
  EXPECT_FALSE(take_answer());
}

TEST_P(BlockScript, ThrottledRequestsGoOnByThemselves) {
  auto& fake = attach_fake(Answers::AtOnce, {.limits = {.operations = 1000, .operations_burst = 1}});
  for (std::uint64_t i = 0; i < 8; ++i) {
    driver.chain().readable(header(BlockType::In, i)).writable(512).writable(1).submit();
  }
  block->notified(0);
  EXPECT_LT(fake.kinds.size(), 8U);
  Timer look{loop, [&] {
               if (fake.kinds.size() == 8) {
                 loop.stop();
               }
             }};
  look.start_periodic(std::chrono::milliseconds{1});
  loop.run();
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(take_answer()->status, BlockStatus::Ok);
  }
}

TEST_P(BlockScript, ZeroesCountAsMuchAsTheyMayWrite) {
  auto& fake = attach_fake(Answers::AtOnce, {.limits = {.bytes = 1, .burst = 1}});
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sector = 1, .sectors = 1}, {.sector = 7, .sectors = 2}}),
            BlockStatus::Ok);
  driver.chain().readable(header(BlockType::In)).writable(512).writable(1).submit();
  block->notified(0);
  EXPECT_EQ(fake.kinds.size(), 2U);  // a debt of minutes
}

TEST_P(BlockScript, EachQueueIsServed) {
  auto& fake = attach_fake(Answers::Later, {.queues = 3});
  EXPECT_EQ(block->queue_sizes().size(), 3U);
  EXPECT_NE(block->features() & kBlkMultiQueue, 0U);
  EXPECT_EQ(config<std::uint16_t>(34), 3);
  for (std::uint16_t queue = 0; queue < 3; ++queue) {
    driver.chain(queue).readable(header(BlockType::In)).writable(512).writable(1).submit();
    block->notified(queue);
  }
  block->stop_queue(1);  // while the others are in flight
  EXPECT_TRUE(take_answer(1));
  while (fake.waiting() != 0) {
    fake.answer();
  }
  EXPECT_TRUE(take_answer(0));
  EXPECT_TRUE(take_answer(2));
  EXPECT_GE(driver.interrupts(2), 1U);
}

TEST_P(BlockScript, DescribesItself) {
  attach_fake(Answers::Later, {.block_size = 4096});
  EXPECT_EQ(config<std::uint64_t>(0), kFakeSize / kSector);
  EXPECT_EQ(config<std::uint32_t>(12), 254U);   // seg_max
  EXPECT_EQ(config<std::uint32_t>(20), 4096U);  // blk_size
  EXPECT_EQ(config<std::uint32_t>(40), 16U);    // max_discard_seg
  Bytes far(16, std::byte{0xff});
  block->read_config(56, far);
  EXPECT_EQ(far[0], std::byte{1});
  EXPECT_EQ(far[4], std::byte{0});
  block->read_config(~0U, far);
  EXPECT_EQ(far, Bytes(16));
  EXPECT_EQ(block->id(), DeviceId::Block);
}

TEST_P(BlockScript, GrowsAndShrinksWhileRunning) {
  auto& fake = attach_fake(Answers::Later);
  const auto generation = block->config_generation();
  block->resized();
  EXPECT_EQ(driver.config_changes(), 0U);  // nothing changed
  fake.bytes.resize(2 * kFakeSize);
  EXPECT_EQ(read(kFakeSize / kSector, 512).status, BlockStatus::IoError);
  block->resized();
  EXPECT_EQ(driver.config_changes(), 1U);
  EXPECT_NE(block->config_generation(), generation);
  EXPECT_EQ(config<std::uint64_t>(0), 2 * kFakeSize / kSector);
  EXPECT_EQ(read(kFakeSize / kSector, 512).status, BlockStatus::Ok);
  fake.bytes.resize(kSector);
  block->resized();
  EXPECT_EQ(read(1, 512).status, BlockStatus::IoError);
}

}  // namespace
}  // namespace martlet::virtio
