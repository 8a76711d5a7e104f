#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "vmm/debug/gdb/packet.h"

namespace martlet::gdb {
namespace {

using Kind = PacketReader::Kind;

std::vector<PacketReader::Item> read_all(PacketReader& reader, std::string_view bytes) {
  std::vector<PacketReader::Item> items;
  while (auto item = reader.next(bytes)) {
    items.push_back(*item);
  }
  return items;
}

TEST(GdbPacket, ReadsWhatItWrites) {
  std::string binary;
  for (int i = 0; i < 256; ++i) {
    binary += static_cast<char>(i);
  }
  for (const std::string& payload : {std::string{}, std::string{"g"}, binary}) {
    PacketReader reader;
    const auto items = read_all(reader, frame(payload));
    ASSERT_EQ(items.size(), 1U);
    EXPECT_EQ(items[0].kind, Kind::Packet);
    EXPECT_EQ(items[0].payload, payload);
  }
  EXPECT_EQ(frame("OK"), "$OK#9a");
  EXPECT_EQ(frame("*"), "$}\x0a#87") << "not to be taken for a run";
}

TEST(GdbPacket, ReadsByteByByte) {
  PacketReader reader;
  std::vector<PacketReader::Item> items;
  for (const char byte : std::string{"+$m0,4#fd-\x03"}) {
    for (auto& item : read_all(reader, std::string_view{&byte, 1})) {
      items.push_back(item);
    }
  }
  ASSERT_EQ(items.size(), 4U);
  EXPECT_EQ(items[0].kind, Kind::Ack);
  EXPECT_EQ(items[1].payload, "m0,4");
  EXPECT_EQ(items[2].kind, Kind::Nak);
  EXPECT_EQ(items[3].kind, Kind::Interrupt);
}

TEST(GdbPacket, SeesDamage) {
  PacketReader reader;
  for (const auto* bytes : {"$g#68", "$g#zz", "$g#6", "$g}#e4"}) {
    const auto items = read_all(reader, std::string{bytes} + (std::string{bytes} == "$g#6" ? "x" : ""));
    ASSERT_EQ(items.size(), 1U) << bytes;
    EXPECT_EQ(items[0].kind, Kind::Damaged) << bytes;
  }
  EXPECT_EQ(read_all(reader, "$g#67")[0].kind, Kind::Packet) << "and goes on";
  reader.ignore_checksums();
  EXPECT_EQ(read_all(reader, "$g#68")[0].kind, Kind::Packet);
  EXPECT_EQ(read_all(reader, "$g}#00")[0].kind, Kind::Damaged) << "half an escape is no byte";
}

TEST(GdbPacket, BeginsAgainWhereAPacketBeginsInAnother) {
  PacketReader reader;
  const auto items = read_all(reader, "noise$m0,$g#67");
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(items[0].payload, "g");
}

TEST(GdbPacket, ThrowsEndlessPacketsAway) {
  PacketReader reader;
  EXPECT_TRUE(read_all(reader, "$").empty());
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(read_all(reader, std::string(1U << 20U, 'a')).empty());
  }
  reader.ignore_checksums();
  const auto items = read_all(reader, "#00$g#67");
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].kind, Kind::TooLong);
  EXPECT_EQ(items[1].payload, "g");
}

TEST(GdbPacket, TakesTheLongestItAnnounces) {
  PacketReader reader;
  const std::string longest(kMaxPacket, '}');  // each escaped: twice as long on the line
  EXPECT_EQ(read_all(reader, frame(longest))[0].payload, longest);
  EXPECT_EQ(read_all(reader, frame(longest + "}"))[0].kind, Kind::TooLong);
}

TEST(GdbPacket, HexIsPairsOfDigits) {
  EXPECT_EQ(to_hex("A\xff"), "41ff");
  EXPECT_EQ(from_hex("41fF"), "A\xff");
  EXPECT_EQ(from_hex(""), "");
  EXPECT_FALSE(from_hex("4"));
  EXPECT_FALSE(from_hex("4g"));
}

TEST(GdbPacket, ArgumentsAreHexadecimal) {
  Arguments args{"ffffffff81000000,10:rest"};
  EXPECT_EQ(args.number(), 0xffff'ffff'8100'0000U);
  EXPECT_FALSE(args.take(":"));
  EXPECT_TRUE(args.take(","));
  EXPECT_EQ(args.until(':'), "10");
  EXPECT_EQ(args.rest(), "rest");
  EXPECT_FALSE(Arguments{""}.number());
  EXPECT_FALSE(Arguments{"-1"}.number());
  EXPECT_FALSE(Arguments{"10000000000000000"}.number()) << "65 bits";
  EXPECT_EQ(Arguments{"00000000000000000001"}.number(), 1U);
}

}  // namespace
}  // namespace martlet::gdb
