#pragma once
// A client of the gdb stub that speaks in whole packets.

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/gdb_fake_target.h"
#include "vmm/debug/gdb/packet.h"
#include "vmm/debug/gdb/stub.h"

namespace martlet::gdb {

class GdbClient : public testing::Test {
 protected:
  static constexpr auto kText = FakeTarget::kText;

  void SetUp() override {
    stub_.connect();
    EXPECT_EQ(ask("QStartNoAckMode"), "OK");
    static_cast<void>(raw("+"));
    ask("qSupported:swbreak+;hwbreak+;error-message+");
  }

  /// Whatever comes back to `bytes`.
  std::string raw(std::string_view bytes) {
    EXPECT_EQ(stub_.feed(bytes), bytes.size());
    return output();
  }
  std::string output() {
    static_cast<void>(stub_.feed(""));  // it may take again what it held back
    const std::string all = stub_.output();
    stub_.sent(all.size());
    return all;
  }
  /// The payloads of all packets in `bytes`.
  static std::vector<std::string> payloads(std::string_view bytes) {
    PacketReader reader;
    std::vector<std::string> all;
    while (auto item = reader.next(bytes)) {
      if (item->kind == PacketReader::Kind::Packet) {
        all.push_back(item->payload);
      }
    }
    return all;
  }
  /// The one reply to a packet, "(none)" when there is none.
  std::string ask(std::string_view packet) {
    const auto replies = payloads(raw(frame(packet)));
    EXPECT_LE(replies.size(), 1U) << packet;
    return replies.empty() ? "(none)" : replies.front();
  }
  /// The stub's news, without being asked.
  std::string news() {
    const auto packets = payloads(output());
    EXPECT_LE(packets.size(), 1U);
    return packets.empty() ? "(none)" : packets.front();
  }
  /// What `monitor COMMAND` prints.
  std::string monitor(std::string_view command) {
    std::string text;
    const auto replies = payloads(raw(frame("qRcmd," + to_hex(command))));
    for (const auto& reply : replies) {
      text += reply.starts_with('O') && reply != "OK" ? *from_hex(std::string_view{reply}.substr(1)) : "";
    }
    EXPECT_EQ(replies.back(), "OK");
    return text;
  }

  FakeTarget target_{2};
  Stub stub_{target_, {.version = "Martlet 1.2.3"}};
};

}  // namespace martlet::gdb
