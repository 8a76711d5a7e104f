#include "devices/virtio/net_header.h"

#include <gtest/gtest.h>

#include "net/backend.h"

namespace martlet::virtio {
namespace {

constexpr std::uint32_t kAll = kChecksum | kTso4 | kTso6 | kTsoEcn | kUfo | kUso;
constexpr NetHeader kTcp4 = {.flags = kNeedsChecksum,
                             .gso_type = 1,
                             .hdr_len = 54,
                             .gso_size = 1460,
                             .csum_start = 34,
                             .csum_offset = 16,
                             .num_buffers = 0};

TEST(NetHeader, WhatIsRightPasses) {
  EXPECT_EQ(check_header({}, 60, 0), NetHeader{});
  EXPECT_EQ(check_header(kTcp4, 60000, kAll), kTcp4);
  for (const int type : {1, 1 | kGsoEcn, 4, 4 | kGsoEcn, 3, 5}) {
    auto header = kTcp4;
    header.gso_type = static_cast<std::uint8_t>(type);
    EXPECT_EQ(check_header(header, 60000, kAll), header) << type;
  }
}

TEST(NetHeader, OnlyWhatItSaysIsUsed) {
  const NetHeader junk{.flags = kDataValid,
                       .gso_type = 0,
                       .hdr_len = 0xffff,
                       .gso_size = 0xffff,
                       .csum_start = 0xffff,
                       .csum_offset = 0xffff,
                       .num_buffers = 0xffff};
  EXPECT_EQ(check_header(junk, 60, kAll), NetHeader{});
  auto checksum = kTcp4;
  checksum.gso_type = 0;
  checksum.num_buffers = 7;
  EXPECT_EQ(check_header(checksum, 60, kAll),
            (NetHeader{.flags = kNeedsChecksum, .csum_start = 34, .csum_offset = 16}));
  auto hint = kTcp4;
  hint.hdr_len = 0;
  EXPECT_EQ(check_header(hint, 60000, kAll)->hdr_len, 52);
}

TEST(NetHeader, WhatIsWrongDoesNot) {
  const auto refused = [](auto change, std::size_t length = 1000, std::uint32_t offloads = kAll) {
    NetHeader header = kTcp4;
    change(header);
    return !check_header(header, length, offloads);
  };
  const auto nothing = [](NetHeader&) {};
  EXPECT_FALSE(refused(nothing));
  EXPECT_TRUE(refused(nothing, 13));
  EXPECT_TRUE(refused(nothing, 53));  // headers longer than the frame
  EXPECT_TRUE(refused(nothing, NetBackend::kMaxFrame + 1));
  EXPECT_FALSE(refused(nothing, NetBackend::kMaxFrame));
  EXPECT_TRUE(refused([](NetHeader& h) { h.flags = 0; }));  // segments without checksums
  EXPECT_TRUE(refused([](NetHeader& h) { h.gso_size = 0; }));
  EXPECT_TRUE(refused([](NetHeader& h) { h.gso_size = 7; }));
  for (const int type : {3, 5}) {
    const auto udp = [type](std::uint16_t segment) {
      return [type, segment](NetHeader& h) {
        h.gso_type = static_cast<std::uint8_t>(type), h.gso_size = segment, h.csum_offset = 6, h.hdr_len = 42;
      };
    };
    EXPECT_TRUE(refused(udp(0), 42));
    EXPECT_TRUE(refused(udp(1), NetBackend::kMaxFrame));
    EXPECT_TRUE(refused(udp(7), NetBackend::kMaxFrame));
    EXPECT_FALSE(refused(udp(8), NetBackend::kMaxFrame));
    EXPECT_TRUE(refused(udp(1), 128 + 129));
    EXPECT_FALSE(refused(udp(1), 42 + 128));  // Linux sends that
  }
  EXPECT_TRUE(refused([](NetHeader& h) { h.hdr_len = 1001; }));
  EXPECT_TRUE(refused([](NetHeader& h) { h.csum_start = 13; }));
  EXPECT_TRUE(refused([](NetHeader& h) { h.csum_start = 999; }));
  EXPECT_TRUE(refused([](NetHeader& h) { h.csum_start = 0xffff, h.csum_offset = 0xffff; }));  // no wrapping
  EXPECT_TRUE(refused([](NetHeader& h) { h.csum_offset = 1000 - 34 - 1; }));
  EXPECT_FALSE(refused([](NetHeader& h) { h.csum_offset = 1000 - 34 - 2; }));
  for (const int type : {2, 6, 7, 0x41, 0x7f, 0x80, 0x83, 0x85, 0xff}) {
    EXPECT_TRUE(refused([type](NetHeader& h) { h.gso_type = static_cast<std::uint8_t>(type); })) << type;
  }
  EXPECT_TRUE(refused(nothing, 1000, kAll & ~kTso4));
  EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type |= kGsoEcn; }, 1000, kAll & ~kTsoEcn));
  EXPECT_TRUE(refused([](NetHeader& h) { h.gso_type = 0; }, 1000, 0));
}

TEST(NetHeader, OffloadsFollowFromFeatures) {
  EXPECT_EQ(guest_offloads(features_of(kAll)), kAll);
  EXPECT_EQ(host_offloads(features_of(kAll)), kAll);
  EXPECT_EQ(guest_offloads(kNetGuestTso4 | kNetGuestTso6), 0U);  // §5.1.3.1: not without checksums
  EXPECT_EQ(guest_offloads(kNetGuestChecksum | kNetGuestEcn), std::uint32_t{kChecksum});
  EXPECT_EQ(guest_offloads(kNetGuestChecksum | kNetGuestUso4), std::uint32_t{kChecksum});  // both or none
  EXPECT_EQ(host_offloads(kNetChecksum | kNetHostTso4 | kNetGuestTso6), kChecksum | kTso4);
}

}  // namespace
}  // namespace martlet::virtio
