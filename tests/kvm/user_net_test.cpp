// -n user by the whole program, with a capture beside it: the tiny network guest finds its peer behind passt.

#include <gtest/gtest.h>

#include <string>

#include "tests/kvm/martlet.h"
#include "tests/kvm/network.h"
#include "tests/unit/pcapng_reader.h"

namespace martlet::test {
namespace {

constexpr const char* kBehindPasst =
    "ip link set lo up; ip link add up0 type bridge; ip addr add 10.0.2.15/24 dev up0; ip link set up0 up; "
    "ip route add default via 10.0.2.1; ip addr add 10.0.2.2/32 dev lo; echo 0 2147483647 "
    ">/proc/sys/net/ipv4/ping_group_range";

TEST(UserNet, EchoesComeBackThroughPasst) {
  if (const auto why = no_network(); !why.empty()) {
    GTEST_SKIP() << why;
  }
  if (run({.command = {"sh", "-c", "command -v passt"}}).exit_code != 0) {
    GTEST_SKIP() << "needs the package passt";
  }
  const TempDir directory;
  const auto capture = directory.file("guest.pcapng");
  const Guest guest{.name = "virtio_net",
                    .append = "irq=msix mac=02:4d:61:72:74:6c",
                    .options = {"-m", "64M", "-n", "user,mtu=1500,mac=02:4d:61:72:74:6c,pcap=" + capture}};
  const auto ended = run({.command = in_network(kBehindPasst, martlet_command(guest))});
  EXPECT_EQ(ended.exit_code, 0) << ended;
  EXPECT_NE(ended.out.find("net: requests "), std::string::npos) << ended;
  EXPECT_EQ(ended.err, "") << ended;
  const Captured file{read_file(capture)};
  EXPECT_EQ(file.wrong, "");
  EXPECT_FALSE(file.cut);
  ASSERT_EQ(file.interfaces.size(), 1U);
  EXPECT_EQ(file.interfaces[0].at(2), "user");
  ASSERT_EQ(file.statistics.size(), 1U);
  EXPECT_EQ(file.statistics[0].dropped, 0U);
  ASSERT_GT(file.packets.size(), 4U);
  const auto& question = file.packets[0];  // who has 10.0.2.2?
  EXPECT_EQ(question.direction, 2U);
  EXPECT_EQ(question.bytes.substr(0, 14), std::string("\xff\xff\xff\xff\xff\xff\x02\x4d\x61\x72\x74\x6c\x08\x06", 14));
  // Each echo request went out, and came back with the same bytes behind its type and checksum.
  std::size_t echoes = 0;
  for (std::size_t i = 0; i + 1 < file.packets.size(); ++i) {
    const auto& sent = file.packets[i];
    const auto is_echo = [](const Captured::Packet& packet, char type) {
      return packet.bytes.size() > 42 && packet.bytes.substr(12, 2) == std::string("\x08\0", 2) &&
             packet.bytes[23] == 1 && packet.bytes[34] == type;
    };
    if (is_echo(sent, 8)) {
      EXPECT_EQ(sent.direction, 2U);
      for (auto j = i + 1; j < file.packets.size(); ++j) {
        const auto& back = file.packets[j];
        if (is_echo(back, 0) && back.bytes.substr(38) == sent.bytes.substr(38)) {
          EXPECT_EQ(back.direction, 1U);
          ++echoes;
          break;
        }
      }
    }
  }
  EXPECT_GT(echoes, 3U);
}

}  // namespace
}  // namespace martlet::test
