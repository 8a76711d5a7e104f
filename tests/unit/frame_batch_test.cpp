#include "net/frame_batch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

/// Two ends that keep messages apart and in order, as a TAP does frames.
class FrameBatchOnSockets : public ::testing::Test {
 protected:
  FrameBatchOnSockets() {
    std::array<int, 2> fds{};
    check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), "socketpair");
    a = Fd{fds[0]};
    b = Fd{fds[1]};
    if (batch == nullptr) {
      skip = true;
    }
  }
  void SetUp() override {
    if (skip) {
      GTEST_SKIP() << "this host has no io_uring, or one before Linux 5.19";
    }
  }

  /// Messages of a number each, or room for as many.
  struct Messages {
    explicit Messages(std::size_t count) : numbers(count), vectors(count), transfers(count) {
      for (std::size_t i = 0; i < count; ++i) {
        numbers[i] = static_cast<int>(i);
        vectors[i] = {&numbers[i], sizeof(int)};
        transfers[i] = {.vectors = {&vectors[i], 1}, .result = 12345};
      }
    }
    std::vector<int> numbers;
    std::vector<iovec> vectors;
    std::vector<NetBackend::Transfer> transfers;
  };

  std::unique_ptr<FrameBatch> batch = FrameBatch::make();
  Fd a, b;
  bool skip = false;
};

TEST_F(FrameBatchOnSockets, MovesInOrderAndWaitsForNothing) {
  constexpr auto kWhole = static_cast<std::ptrdiff_t>(sizeof(int));
  for (const std::size_t count : {1U, 16U, 40U}) {
    Messages out{count};
    batch->write(a.get(), out.transfers);
    Messages in{count + 5};
    std::ranges::fill(in.numbers, -1);
    batch->read(b.get(), in.transfers);
    for (std::size_t i = 0; i < in.numbers.size(); ++i) {
      EXPECT_TRUE(i >= count || out.transfers[i].result == kWhole) << i;
      EXPECT_EQ(in.transfers[i].result, i < count ? kWhole : -EAGAIN) << i;
      EXPECT_EQ(in.numbers[i], i < count ? static_cast<int>(i) : -1) << i;
    }
  }
}

TEST_F(FrameBatchOnSockets, WhatFindsNoRoomComesBack) {
  Messages out{31};
  for (int i = 0; i < 100; ++i) {
    batch->write(a.get(), out.transfers);
  }
  EXPECT_EQ(out.transfers.back().result, -EAGAIN);
}

TEST_F(FrameBatchOnSockets, NothingIsLeftInFlight) {
  Messages in{3};
  batch->read(b.get(), in.transfers);
  const int late = 7;
  ASSERT_EQ(::write(a.get(), &late, sizeof late), static_cast<ssize_t>(sizeof late));
  Messages after{2};
  batch->read(b.get(), after.transfers);
  EXPECT_EQ(after.numbers[0], 7);
  EXPECT_EQ(in.numbers[0], 0);
}

TEST_F(FrameBatchOnSockets, EachHasItsOwnError) {
  Messages out{3};
  out.vectors[1].iov_base = nullptr;
  batch->write(a.get(), out.transfers);
  EXPECT_EQ(out.transfers[0].result, 4);
  EXPECT_EQ(out.transfers[1].result, -EFAULT);
  EXPECT_EQ(out.transfers[2].result, 4);
  batch->read(-1, out.transfers);
  EXPECT_EQ(out.transfers[0].result, -EBADF);
}

}  // namespace
}  // namespace martlet
