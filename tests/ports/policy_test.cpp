// A port's settings as words and as JSON.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "net/options.h"
#include "net/port_policy.h"
#include "tests/support/namespace.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using test::error_of;
using testing::HasSubstr;

PortPolicy policy_of(const std::string& words) { return parse_net("bridge=br0," + words).port; }

TEST(PortPolicy, IsReadFromWords) {
  EXPECT_EQ(policy_of("vlan=10").vlans, (PortVlans{.ranges = {{10, 10}}, .native = 10}));
  EXPECT_EQ(policy_of("vlans=30+10-20").vlans, (PortVlans{.ranges = {{10, 20}, {30, 30}}}));
  EXPECT_EQ(policy_of("vlans=10-12+13-20,native=13").vlans, (PortVlans{.ranges = {{10, 20}}, .native = 13}));
  EXPECT_EQ(policy_of("vlans=7,native=7"), policy_of("vlan=7"));
  EXPECT_EQ(policy_of("isolated=on").isolation, Isolation::On);
  EXPECT_EQ(policy_of("spoof=allow").spoof, Spoof::Allow);
  EXPECT_EQ(policy_of("queues=2"), PortPolicy{});
}

TEST(PortPolicy, RefusesWhatCannotBeAndSaysWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {"vlan=0", "-n vlan=0: '0' is no VLAN; expected 1 to 4094"},
      {"vlan=4095", "'4095' is no VLAN"},
      {"vlan=65537", "is no VLAN"},
      {"vlan=-1", "is no VLAN"},
      {"vlan=1-2", "is no VLAN"},
      {"vlans=10-20+20-30", "vlans=10-20+20-30: 20-30 overlaps 10-20"},
      {"vlans=5+5", "overlaps"},
      {"vlans=20-10", "20-10 ends before it begins"},
      {"vlans=10+", "'' is no VLAN"},
      {"vlans=0-10", "'0' is no VLAN"},
      {"vlans=10-4095", "'4095' is no VLAN"},
      {"vlans=10-20,native=21", "native=21: not one of vlans=10-20"},
      {"native=10", "wants vlans="},
      {"vlan=10,native=10", "leave vlans= and native= out"},
      {"vlan=10,vlans=10", "leave vlans= and native= out"},
      {"isolated=maybe", "isolated"},
      {"rate=0", "nothing would ever pass"},
      {"rate=2000T", "at most 1024T"},
      {"burst=1M", "wants rate="},
      {"pcap=", "pcap"},
      {"policy=/nonexistent", "policy=/nonexistent: cannot be read"},
  };
  for (const auto& [words, why] : cases) {
    EXPECT_THAT(error_of([&, it = words] { (void)policy_of(it); }), HasSubstr(why)) << words;
  }
  for (const char* const key : {"policy=x", "vlan=10", "vlans=10", "native=10", "isolated=on", "spoof=deny"}) {
    EXPECT_THAT(error_of([&] { (void)parse_net(std::string{"tap=a,"} + key); }), HasSubstr("wants bridge=NAME"));
  }
}

TEST(PortPolicy, IsTheSameAfterATripThroughJson) {
  for (const char* const words :
       {"queues=1", "mac=52:54:00:12:34:56,vlan=4094,isolated=on", "vlans=1-9+11+4000-4094,native=11,spoof=allow",
        "vlans=100,mtu=9000,rate=10M,burst=64K", "rate=1024T", "pcap=a file,,of=10.pcapng"}) {
    const auto policy = policy_of(words);
    EXPECT_EQ(parse_policy(to_json(policy), "test"), policy) << to_json(policy);
  }
  EXPECT_EQ(to_json(policy_of("mac=52:54:00:12:34:56,vlan=10,mtu=1500,rate=1M,burst=64K,pcap=/tmp/a.pcapng")),
            "{\n  \"mac\": \"52:54:00:12:34:56\",\n  \"spoof\": \"deny\",\n  \"vlan\": 10,\n  \"isolated\": false,\n"
            "  \"mtu\": 1500,\n  \"rate\": 1048576,\n  \"burst\": 65536,\n  \"pcap\": \"/tmp/a.pcapng\"\n}");
  EXPECT_EQ(parse_policy("{}", "test"), PortPolicy{});
}

TEST(PortPolicy, OfAFileYieldsToTheCommandLine) {
  const test::TempDir directory;
  const auto path = directory.file("policy.json");
  std::ofstream{path} << R"({"mac": "52:54:00:12:34:56", "vlans": "10-20", "native": 15, "rate": 1000, "burst": 100})";
  const auto policy = policy_of("policy=" + path + ",vlan=7,rate=5M,spoof=allow");
  EXPECT_EQ(policy.mac, (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_EQ(policy.vlans, policy_of("vlan=7").vlans);
  EXPECT_EQ(policy.rate, 5U << 20U);
  EXPECT_EQ(policy.burst, 0U);  // of another rate
  EXPECT_EQ(policy.spoof, Spoof::Allow);
  EXPECT_EQ(policy_of("policy=" + path).vlans.native, 15);
}

TEST(PortPolicy, RefusesJsonThatIsNone) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "expected a JSON object"},
      {"[1]", "expected a JSON object"},
      {"{\"vlan\": 10", "expected a JSON object"},
      {R"({"vlan": 0})", "test: vlan=0: '0' is no VLAN"},
      {R"({"vlan": 1.5})", R"("vlan" cannot be 1.5)"},
      {R"({"vlan": -1})", R"("vlan" cannot be -1)"},
      {R"({"vlan": null})", R"("vlan" cannot be null)"},
      {R"({"vlan": [10]})", R"("vlan" cannot be [10])"},
      {R"({"mac": "a\nb"})", R"("mac" cannot be "a\nb")"},
      {R"({"mac": "52:54:00:12:34:56,vlan=10"})", "not a MAC address"},
      {R"({"mac=52:54:00:12:34:56": "x"})", "cannot be"},
      {R"({"vlna": 10})", "test: 'vlna' is unknown, did you mean vlan?"},
      {R"({"isolated": "yes"})", "isolated"},
  };
  for (const auto& [json, why] : cases) {
    EXPECT_THAT(error_of([&, it = json] { (void)parse_policy(it, "test"); }), HasSubstr(why)) << json;
  }
  EXPECT_THAT(error_of([] { (void)parse_policy(std::string(100'000, '['), "test"); }), HasSubstr("JSON object"));
}

}  // namespace
}  // namespace martlet
