#include "devices/virtio/disk_qcow2.h"
#include "qcow2_support.h"

namespace martlet::virtio {
namespace {

using namespace qcow2_test;
using Start = Made::Start;

class Qcow2Model : public testing::TestWithParam<Made::How> {};

const auto kImages = testing::Values(
    Made::How{Start::Empty, 65536, "compat=1.1"}, Made::How{Start::Empty, 512, "compat=1.1"},
    Made::How{Start::Empty, 2U << 20U, "compat=1.1"}, Made::How{Start::Empty, 65536, "compat=0.10"},
    Made::How{Start::Empty, 512, "compat=0.10"}, Made::How{Start::Empty, 4096, "compat=1.1,refcount_bits=1"},
    Made::How{Start::Empty, 1024, "compat=1.1,refcount_bits=2"},
    Made::How{Start::Empty, 4096, "compat=1.1,refcount_bits=8"},
    Made::How{Start::Empty, 512, "compat=1.1,refcount_bits=64"},
    Made::How{Start::RawBacking, 65536, "compat=1.1,refcount_bits=32"},
    Made::How{Start::RawBacking, 4096, "compat=0.10"}, Made::How{Start::RawBacking, 2U << 20U, "compat=1.1"},
    Made::How{Start::Qcow2Backing, 65536, "compat=1.1"}, Made::How{Start::Qcow2Backing, 1024, "compat=0.10"},
    Made::How{Start::Zlib, 65536, "compat=1.1"}, Made::How{Start::Zlib, 4096, "compat=0.10"},
    Made::How{Start::Zlib, 2U << 20U, "compat=1.1"}, Made::How{Start::Zstd, 65536, "compat=1.1"},
    Made::How{Start::Snapshot, 65536, "compat=1.1"}, Made::How{Start::Snapshot, 512, "compat=1.1"},
    Made::How{Start::Snapshot, 4096, "compat=0.10,refcount_bits=16"},
    Made::How{Start::Preallocated, 65536, "compat=1.1"});

void expect_holds(const Bytes& disk, const std::function<bool(std::uint64_t, std::uint64_t)>& may) {
  ASSERT_GE(disk.size(), Made::kSectors * kSector);
  for (std::uint64_t i = 0; i < Made::kSectors; ++i) {
    const auto version = stamp_of(std::span{disk}.subspan(i * kSector, kSector));
    ASSERT_TRUE(version && may(i, *version)) << "sector " << i << " holds " << version.value_or(999'999);
  }
}

TEST_P(Qcow2Model, WhatWasWrittenIsThereForQemuToo) {
  const Made made{GetParam()};
  auto model = made.model();
  MemoryImage* image = nullptr;
  auto disk = made.open(load(made.path()), image, 1);
  Bytes content;
  {
    Guest guest{*disk, model, 1};
    for (int i = 0; i < 4; ++i) {
      guest.play(100, 8);
      guest.finish();
    }
    EXPECT_EQ(guest.first_error, 0);
    // The tables are saved as it is closed: look at the last moment.
    class Flush final : public DiskRequest {
     public:
      Flush() { work.kind = Kind::Flush; }
      void done(int error) noexcept override {
        EXPECT_EQ(error, 0);
        over = true;
      }
      bool over = false;
    };
    for (int i = 0; i < 2; ++i) {
      Flush flush;
      disk->submit(flush);
      while (!flush.over) {
        disk->wait();
      }
    }
    content = image->bytes;
  }
  disk.reset();
  expect_holds(made.read_back(content, Leaks::No),
               [&](auto sector, auto version) { return model.may_hold_now(sector, version); });
  if (GetParam().start == Start::Snapshot) {
    const auto before = made.read_back(content, Leaks::No, "-l before");
    ASSERT_GE(before.size(), made.base.size());
    EXPECT_TRUE(std::equal(made.base.begin(), made.base.end(), before.begin()));
  }
}

TEST_P(Qcow2Model, APowerCutLeavesASoundImageWithAllThatWasFlushed) {
  const Made made{GetParam()};
  for (std::uint32_t seed = 0; seed < 2 && !HasFailure(); ++seed) {
    auto model = made.model();
    MemoryImage* image = nullptr;
    const auto disk = made.open(load(made.path()), image, seed);
    Guest guest{*disk, model, seed};
    for (int cut = 0; cut < 2 && !HasFailure(); ++cut) {
      guest.play(40 + 10 * seed, 12);
      for (const auto& left : {image->cut(), image->killed()}) {
        expect_holds(made.read_back(left, Leaks::Allowed),
                     [&](auto sector, auto version) { return model.may_hold_after_a_crash(sector, version); });
      }
    }
    guest.finish();
    EXPECT_EQ(guest.first_error, 0);
  }
}

TEST_P(Qcow2Model, GoesOnAfterAPowerCut) {
  const Made made{GetParam()};
  auto content = load(made.path());
  auto model = made.model();
  for (std::uint32_t round = 0; round < 2 && !HasFailure(); ++round) {
    MemoryImage* image = nullptr;
    const auto disk = made.open(content, image, round);
    Guest guest{*disk, model, round};
    guest.play(40, 8);
    content = image->cut();
    guest.finish();
    // What is there now is what there is from now on.
    const auto now = made.read_back(content, Leaks::Allowed);
    std::vector<std::uint64_t> versions;
    for (std::uint64_t i = 0; i < Made::kSectors; ++i) {
      versions.push_back(stamp_of(std::span{now}.subspan(i * kSector, kSector)).value_or(0));
    }
    model = Model{Made::kSectors, versions};
  }
}

INSTANTIATE_TEST_SUITE_P(Images, Qcow2Model, kImages);

TEST(Qcow2Disk, AFullHostIsAnErrorAndLosesNothing) {
  const Made made{{.start = Start::Empty}};
  auto model = made.model();
  MemoryImage* image = nullptr;
  const auto disk = made.open(load(made.path()), image, 1);
  Guest guest{*disk, model, 1};
  guest.play(30, 4);
  guest.finish();
  EXPECT_EQ(guest.first_error, 0);
  image->write_error = ENOSPC;
  guest.play(60, 4);
  guest.finish();
  EXPECT_EQ(guest.first_error, ENOSPC);
  EXPECT_GT(guest.flush_errors, 0);
  expect_holds(made.read_back(image->cut(), Leaks::Allowed),
               [&](auto sector, auto version) { return model.may_hold_after_a_crash(sector, version); });
  image->write_error = 0;
  guest.flush_errors = 0;
  guest.play(200, 4);
  guest.finish();
  EXPECT_EQ(guest.flush_errors, 0);
  expect_holds(made.read_back(image->cut(), Leaks::Allowed),
               [&](auto sector, auto version) { return model.may_hold_after_a_crash(sector, version); });
}

TEST(Qcow2Disk, AFlushThatFailsAcknowledgesNothing) {
  const Made made{{.start = Start::RawBacking, .cluster = 4096}};
  auto model = made.model();
  MemoryImage* image = nullptr;
  const auto disk = made.open(load(made.path()), image, 1);
  Guest guest{*disk, model, 1};
  image->sync_error = EIO;
  guest.play(100, 4);
  guest.finish();
  EXPECT_GT(guest.flush_errors, 0);
  expect_holds(made.read_back(image->cut(), Leaks::Allowed),
               [&](auto sector, auto version) { return model.may_hold_after_a_crash(sector, version); });
}

}  // namespace
}  // namespace martlet::virtio
