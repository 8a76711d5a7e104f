#include "net/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "vmm/base/error.h"

namespace martlet {
namespace {

std::string round_trip(std::string_view text) { return to_string(parse_host_address(text, "--address ")); }

std::string refusal(std::string_view text) {
  try {
    return "accepted: " + round_trip(text);
  } catch (const HostError& error) {
    return error.what();
  }
}

TEST(HostAddress, SaysWhatItWasGiven) {
  for (const auto* text :
       {"10.0.0.1/24", "192.168.255.254/16", "10.0.0.0/31", "10.0.0.255/32", "fd00::1/64", "fe80::1/10"}) {
    EXPECT_EQ(round_trip(text), text);
  }
}

TEST(HostAddress, KnowsItsNetwork) {
  const auto four = parse_host_address("10.1.2.3/22", "");
  EXPECT_EQ(to_string(four.network()), "10.1.0.0/22");
  EXPECT_EQ(to_string(four.last()), "10.1.3.255/22");
  const auto six = parse_host_address("fd00:1:2:3:4::5/63", "");
  EXPECT_EQ(to_string(six.network()), "fd00:1:2:2::/63");
  EXPECT_EQ(to_string(six.last()), "fd00:1:2:3:ffff:ffff:ffff:ffff/63");
}

TEST(HostAddress, RefusesWhatNoHostCanHave) {
  for (const auto* text : {"", "/", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/0", "10.0.0/24", "10.0.0.256/24",
                           "10.0.0.1/24x", "10.0.0.1/-1", "fd00::1", "fd00::1/129", "fd00::1/24/1", "eth0/24"}) {
    EXPECT_THAT(refusal(text), testing::StartsWith(std::string{"--address "} + text + ": expected an address")) << text;
  }
  for (const auto* text : {"10.0.0.0/24", "10.0.0.255/24", "127.0.0.1/8", "0.0.0.1/8", "224.0.0.1/24",
                           "255.255.255.255/32", "::/64", "::1/128", "ff02::1/64", "fd00::/64"}) {
    EXPECT_THAT(refusal(text), testing::HasSubstr("not an address that a host can have")) << text;
  }
}

}  // namespace
}  // namespace martlet
