// What a hostile driver can write into its rings, each with what must come of it: the request refused and
// the next one served, or the ring latched.

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "virtqueue_support.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kRam = 0x10000;  // somewhere good

struct VirtqueueHostile : EachTable {
  /// The chain goes back with length 0, the driver hears of it, and the queue lives on.
  void refused(FakeDriver::Chain& hostile) {
    const auto interrupts = driver.interrupts();
    const auto id = hostile.submit();
    EXPECT_FALSE(queue->pop());
    EXPECT_EQ(driver.interrupts(), interrupts + 1);
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, id);
    EXPECT_EQ(used->written, 0U);
    EXPECT_FALSE(queue->broken());
    serves_the_next();
    EXPECT_EQ(driver.free_descriptors(), 16U) << "nothing leaked";
  }
  void refused(FakeDriver::Chain&& hostile) { refused(hostile); }
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtqueueHostile, each_table(), name_of_table);

TEST_P(VirtqueueHostile, BuffersOutsideOfGuestMemory) {
  for (const RawDescriptor& buffer : std::vector<RawDescriptor>{
           {.addr = FakeDriver::kHole, .len = 1},
           {.addr = FakeDriver::kHole - 1, .len = 1},
           {.addr = FakeDriver::kLowRam, .len = 1},
           {.addr = FakeDriver::kLowRam - 1, .len = 2},
           {.addr = FakeDriver::kHighRam - 1, .len = 2},
           {.addr = FakeDriver::kHighRam + FakeDriver::kHighRamSize - 1, .len = 2},
           {.addr = ~0ULL, .len = 1},
           {.addr = ~0ULL, .len = 2},  // ends at 0, which is RAM
           {.addr = ~0ULL - 0xfff, .len = 0x2000},
           {.addr = kRam, .len = 0xffff'ffff},
           {.addr = 1ULL << 63U, .len = 0x8000'0000},
       }) {
    auto writable = buffer;
    writable.flags = kWrite;
    refused(chain().raw(buffer));
    refused(chain().raw(writable));
    refused(chain().readable("good").raw(buffer).writable(1));
    refused(chain().readable("good").writable(1).raw(writable));
  }
}

TEST_P(VirtqueueHostile, ReadableAfterWritable) {
  refused(chain().writable(1).readable("x"));
  refused(chain().readable("x").writable(1).readable("x").writable(1));
  refused(chain().writable(1).readable(""));  // also when there is nothing to read
  refused(chain().writable(0).readable("x"));
}

TEST_P(VirtqueueHostile, ReservedFlagsMeanNothing) {
  // Whatever else is set, the queue neither breaks nor leaks. (Avail and used bits are the packed ring's own.)
  for (const unsigned bit : {3U, 4U, 5U, 6U, 8U, 9U, 10U, 11U, 12U, 13U, 14U}) {
    chain().raw({.addr = kRam, .len = 1, .flags = static_cast<std::uint16_t>(1U << bit)}).submit();
    auto request = queue->pop();
    ASSERT_TRUE(request);
    EXPECT_EQ(request->readable_bytes(), 1U);
    queue->complete(std::move(*request), 0);
    ASSERT_TRUE(driver.take_used());
  }
  serves_the_next();
}

TEST_P(VirtqueueHostile, ManyRefusedAtOnce) {
  for (int round = 0; round < 3; ++round) {
    while (driver.free_descriptors() > 1) {
      chain().raw({.addr = FakeDriver::kHole, .len = 1}).submit();
    }
    const auto good = chain().readable("good").submit();
    auto request = queue->pop();
    ASSERT_TRUE(request);
    EXPECT_EQ(text_of(request->readable()), "good");
    queue->complete(std::move(*request), 0);
    std::uint16_t last = 0;
    int count = 0;
    while (const auto used = driver.take_used()) {
      last = used->id;
      ++count;
    }
    EXPECT_EQ(last, good);
    EXPECT_EQ(count, 16);
  }
}

TEST_P(VirtqueueHostile, RefusedInBetweenIsTold) {
  chain().raw({.addr = FakeDriver::kHole, .len = 1}).submit();
  chain().readable("good").submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_FALSE(queue->pop());
  EXPECT_EQ(driver.interrupts(), 1U) << "of the first, even if the second takes for ever";
}

TEST_P(VirtqueueHostile, Nested) {
  driver.write(GuestAddr{kRam}, SplitDescriptor{.addr = kRam + 64, .len = 1, .flags = 0, .next = 0});
  const RawDescriptor inner{.addr = kRam, .len = 16, .flags = kIndirect};
  refused(driver.chain().indirect().raw(inner));
  refused(driver.chain().indirect().readable("x").raw(inner));
}

TEST_P(VirtqueueHostile, TablesThatAreNone) {
  for (const std::uint32_t bytes : {0U, 1U, 15U, 17U, 24U, 17U * 16U, 0xffff'fff0U, 0xffff'ffffU}) {
    refused(driver.chain().readable("x").table_bytes(bytes));
  }
  for (const auto addr : std::initializer_list<std::uint64_t>{FakeDriver::kHole, FakeDriver::kLowRam - 8, ~0ULL - 15}) {
    refused(driver.chain().raw({.addr = addr, .len = 16, .flags = kIndirect}));
  }
  refused(driver.chain().raw({.addr = kRam, .len = 16, .flags = kIndirect}).readable("more"));
}

TEST_P(VirtqueueHostile, TableLongerThanTheQueue) {
  auto longer = driver.chain();
  longer.indirect();
  for (int i = 0; i < 17; ++i) {
    longer.readable("x");
  }
  refused(longer);
}

TEST_P(VirtqueueHostile, DescriptorsBeforeATableCountAsWell) {
  const auto table = driver.allocate(16 * sizeof(SplitDescriptor));
  for (std::uint16_t i = 0; i < 16; ++i) {
    const auto entry = table + i * sizeof(SplitDescriptor);
    if (ring == Ring::Packed) {
      driver.write(entry, PackedDescriptor{.addr = kRam, .len = 1, .id = 0xffff, .flags = kNext});
    } else {
      const auto next = static_cast<std::uint16_t>(i + 1);
      const auto flags = static_cast<std::uint16_t>(i < 14 ? std::uint16_t{kNext} : std::uint16_t{0});
      driver.write(entry, SplitDescriptor{.addr = kRam, .len = 1, .flags = flags, .next = next});
    }
  }
  const auto bytes = [](std::uint32_t entries) { return entries * std::uint32_t{sizeof(SplitDescriptor)}; };
  refused(driver.chain().readable("x").raw({.addr = raw(table), .len = bytes(16), .flags = kIndirect}));
  driver.chain().readable("x").raw({.addr = raw(table), .len = bytes(15), .flags = kIndirect}).submit();
  const auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(request->readable().size(), 16U);
}

TEST_P(VirtqueueHostile, TablesWithoutAgreement) {
  FakeDriver plain{with({.size = 16}, ring)};
  const auto rings = plain.make_queue();
  const auto id = plain.chain().readable("x").indirect().submit();
  EXPECT_FALSE(rings->pop());
  EXPECT_EQ(plain.take_used()->id, id);
  plain.chain().readable("x").submit();
  EXPECT_TRUE(rings->pop());
}

TEST_P(VirtqueueHostile, FourGigabytes) {
  constexpr std::uint32_t kPiece = FakeDriver::kLowRam;
  FakeDriver large{with({.size = 128, .features = kIndirectDescriptors}, ring)};
  const auto rings = large.make_queue();
  for (const std::uint16_t flags : {std::uint16_t{0}, std::uint16_t{kWrite}}) {
    auto most = large.chain(), too_much = large.chain();
    if (indirect) {
      most.indirect();
      too_much.indirect();
    }
    for (std::uint64_t total = kPiece; total < (1ULL << 32U); total += kPiece) {
      most.raw({.addr = 0, .len = kPiece, .flags = flags});
      too_much.raw({.addr = 0, .len = kPiece, .flags = flags});
    }
    most.raw({.addr = 0, .len = kPiece - 1, .flags = flags}).submit();
    auto request = rings->pop();
    ASSERT_TRUE(request);
    EXPECT_EQ(flags == 0 ? request->readable_bytes() : request->writable_bytes(), 0xffff'ffffU);
    rings->complete(std::move(*request), 0);
    ASSERT_TRUE(large.take_used());
    too_much.raw({.addr = 0, .len = kPiece, .flags = flags}).submit();
    EXPECT_FALSE(rings->pop());
    ASSERT_TRUE(large.take_used());
  }
}

TEST_P(VirtqueueHostile, WhatIsPoppedStaysAsItWasChecked) {
  chain().readable("abc").writable(2).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  const auto before = *request->readable().begin();
  for (std::uint64_t i = 0; i < 16; ++i) {
    driver.write(driver.setup().descriptors + i * 16,
                 SplitDescriptor{.addr = FakeDriver::kHole, .len = ~0U, .flags = 0xffff, .next = 0xffff});
  }
  EXPECT_EQ(request->readable()[0].data(), before.data());
  EXPECT_EQ(request->readable_bytes(), 3U);
  queue->complete(std::move(*request), 2);  // and completes
}

// --- Split rings only: `next` and the available ring

struct SplitHostile : VirtqueueHostile {
  /// The queue is broken for good, says so once, and lets what is in flight end.
  void latched() {
    EXPECT_FALSE(queue->pop());
    EXPECT_TRUE(queue->broken());
    EXPECT_FALSE(queue->pop());
    EXPECT_FALSE(queue->enable_notifications());
    EXPECT_EQ(driver.resets_wanted(), 1U);
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, SplitHostile,
                         ::testing::Values(std::pair{Ring::Split, Table::Direct},
                                           std::pair{Ring::Split, Table::Indirect}),
                         name_of_table);

TEST_P(SplitHostile, NextLeadsOutside) {
  for (const std::uint16_t next :
       {std::uint16_t{16}, std::uint16_t{17}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
    refused(chain().raw({.addr = kRam, .len = 1, .next = next}));
    refused(chain().readable("x").raw({.addr = kRam, .len = 1, .next = next}));
  }
  refused(driver.chain().indirect().raw({.addr = kRam, .len = 1, .next = 1}));  // inside the queue, outside the table
  refused(driver.chain().raw({.addr = kRam, .len = 16, .flags = kIndirect, .next = 0}));
}

TEST_P(SplitHostile, Loops) {
  const auto start = [&] { return indirect ? std::uint16_t{0} : driver.next_head(); };
  refused(chain().raw({.addr = kRam, .len = 1, .next = start()}));
  refused(chain().readable("x").raw({.addr = kRam, .len = 1, .next = start()}));
  refused(chain().raw({.addr = kRam, .len = 0, .next = start()}));
  refused(chain().readable("x").raw({.addr = kRam, .len = 1, .flags = kWrite, .next = start()}));
}

TEST_P(SplitHostile, AvailableIndexJumps) {
  for (const std::uint16_t jump : {std::uint16_t{17}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
    driver.chain().readable("in flight").writable(1).submit();
    queue = nullptr;
    queue = driver.make_queue();
    const auto resets = driver.resets_wanted();
    const auto id = chain().readable("in flight").writable(1).submit();
    auto request = queue->pop();
    ASSERT_TRUE(request);
    driver.set_avail_index(static_cast<std::uint16_t>(driver.avail_index() + jump));
    EXPECT_FALSE(queue->pop());
    EXPECT_FALSE(queue->pop());
    EXPECT_TRUE(queue->broken());
    EXPECT_EQ(driver.resets_wanted(), resets + 1);
    queue->complete(std::move(*request), 1);
    EXPECT_EQ(driver.take_used()->id, id);
  }
  queue = driver.make_queue();  // a reset heals it
  EXPECT_FALSE(queue->broken());
  chain().readable("x").submit();
  EXPECT_TRUE(queue->pop());
}

TEST_P(SplitHostile, AvailableIndexGoesBack) {
  serves_the_next();
  driver.set_avail_index(0);
  latched();
}

TEST_P(SplitHostile, HeadOutsideTheTable) {
  chain().readable("good").submit();
  driver.push_head(16);
  const auto request = queue->pop();
  ASSERT_TRUE(request) << "what came before is served";
  latched();
  EXPECT_FALSE(driver.take_used()) << "there is no such request to give back";
}

TEST_P(SplitHostile, HeadTwiceInFlight) {
  const auto id = chain().readable("x").writable(1).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  driver.push_head(id);
  latched();
  EXPECT_FALSE(driver.take_used()) << "its memory is still in use";
  queue->complete(std::move(*request), 1);
  EXPECT_EQ(driver.take_used()->id, id);
  EXPECT_FALSE(driver.take_used());
}

TEST_P(SplitHostile, UsedIndexIsNeverReadBack) {
  driver.write(driver.setup().device + 2, std::uint16_t{0x1234});
  chain().writable(1).submit();
  queue->complete(*queue->pop(), 1);
  EXPECT_EQ(driver.read<std::uint16_t>(driver.setup().device + 2), 1U);
  EXPECT_TRUE(driver.take_used());
}

// --- Packed rings only

struct PackedHostile : RingScript {
  PackedHostile() : RingScript{Ring::Packed, Table::Direct, {.size = 16, .features = kIndirectDescriptors}} {}
  void latched() {
    EXPECT_FALSE(queue->pop());
    EXPECT_TRUE(queue->broken());
    EXPECT_FALSE(queue->pop());
    EXPECT_EQ(driver.resets_wanted(), 1U);
  }
};

TEST_F(PackedHostile, ChainWithoutEnd) {
  auto endless = driver.chain();
  for (int i = 0; i < 16; ++i) {
    endless.raw({.addr = kRam, .len = 1, .flags = kNext});
  }
  endless.submit();
  latched();
  queue = driver.make_queue();
  EXPECT_FALSE(queue->broken());
}

TEST_F(PackedHostile, ChainThatRunsIntoWhatIsInFlight) {
  const auto id = driver.chain().writable(1).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  auto endless = driver.chain();
  for (int i = 0; i < 15; ++i) {
    endless.raw({.addr = FakeDriver::kHole, .len = 1, .flags = kNext});
  }
  endless.submit();
  latched();
  queue->complete(std::move(*request), 1);
  EXPECT_EQ(driver.take_used()->id, id);
}

TEST_F(PackedHostile, ChainThatRunsIntoWhatWasNeverMadeAvailable) {
  driver.chain().readable("good").submit();
  driver.chain().raw({.addr = kRam, .len = 1, .flags = kNext}).submit();
  const auto request = queue->pop();
  ASSERT_TRUE(request) << "what came before is served";
  latched();
}

TEST_F(PackedHostile, TableFollowedByNothing) {
  driver.chain().readable("x").table_flags(kNext).submit();
  latched();
}

TEST_F(PackedHostile, BufferIdsAreTheDriversOwnBusiness) {
  for (const std::uint16_t id : {std::uint16_t{16}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
    driver.chain().writable(1).id(id).submit();
    queue->complete(*queue->pop(), 1);
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, id);
  }
  driver.chain().readable("first").writable(1).id(7).submit();
  driver.chain().readable("second").writable(1).id(7).submit();  // each is its own obligation
  auto first = queue->pop();
  auto second = queue->pop();
  ASSERT_TRUE(first && second);
  queue->complete(std::move(*second), 1);
  queue->complete(std::move(*first), 1);
  EXPECT_EQ(driver.take_used()->id, 7U);
  EXPECT_EQ(driver.take_used()->id, 7U);
  serves_the_next();
}

TEST_F(PackedHostile, ARingTurnedAvailableAgainIsNotServedTwice) {
  auto all = driver.chain();
  for (int i = 0; i < 16; ++i) {
    all.writable(1);
  }
  all.submit();
  const auto request = queue->pop();
  ASSERT_TRUE(request);
  // As if there were a next lap, though every slot is in flight.
  for (std::uint64_t i = 0; i < 16; ++i) {
    driver.write(driver.setup().descriptors + i * sizeof(PackedDescriptor),
                 PackedDescriptor{.addr = kRam, .len = 1, .id = 3, .flags = kPackedUsed});
  }
  latched();
}

}  // namespace
}  // namespace martlet::virtio
