// What driver and device tell each other of a console's ports (virtio 1.2 §5.3.6.2).

#include "devices/virtio/console_control.h"

#include <fmt/format.h>

#include <filesystem>

#include "tests/unit/console_support.h"

namespace martlet::virtio {
namespace {

using namespace std::chrono_literals;

struct ConsolePorts : ConsoleTest {
  /// A console on a file and a port "agent" on a socket.
  void make_agent() {
    make({.target = file(path("log")), .ports = {{.name = "agent", .target = socket(path("agent"))}}});
  }
  void say(std::uint32_t port, std::uint16_t event, std::uint16_t value) {
    driver.chain(kControlOut).readable(ConsoleMessage{.port = port, .event = event, .value = value}).submit();
    kick(kControlOut);
    EXPECT_TRUE(wait_used(kControlOut));
  }
  /// The next message from the device, as "port event value rest".
  std::string hear(std::uint32_t buffer = 128) {
    driver.chain(kControlIn).writable(buffer).submit();
    kick(kControlIn);
    const auto used = wait_used(kControlIn);
    if (!used || used->written < sizeof(ConsoleMessage)) {
      return "nothing";
    }
    ConsoleMessage message{};
    const auto bytes = used->bytes();
    std::memcpy(&message, bytes.data(), sizeof message);
    auto rest = text_of(std::span{bytes}.subspan(sizeof message));
    return std::to_string(message.port) + " " + std::to_string(message.event) + " " + std::to_string(message.value) +
           (rest.empty() ? "" : " " + rest);
  }
  /// There is a buffer for a message, and no message.
  bool is_silent() {
    driver.chain(kControlIn).writable(128).submit();
    kick(kControlIn);
    return settles() && !driver.take_used(kControlIn);
  }
  /// Both ports known to both sides, and open.
  void introduce() {
    start(kMultiportBit | kSizeBit);
    say(~0U, kDeviceReady, 1);
    EXPECT_EQ(hear(), "0 1 1");
    EXPECT_EQ(hear(), "1 1 1");
    say(0, kPortReady, 1);
    EXPECT_EQ(hear(), "0 4 1");
    EXPECT_EQ(hear(), "0 6 1");
    say(0, kPortOpen, 1);
    say(1, kPortReady, 1);
    EXPECT_EQ(hear(), "1 7 1 agent");
    say(1, kPortOpen, 1);
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, ConsolePorts, testing::Values(Ring::Split, Ring::Packed), ring_name);

TEST_P(ConsolePorts, AreAnnouncedNamedAndOpened) {
  std::vector<bool> opened;
  hooks.opened = [&](bool open) { opened.push_back(open); };
  const auto heard_of = [&] {  // asked on the loop's thread, which tells it
    std::vector<bool> copy;
    loop.call([&] { copy = opened; });
    return copy;
  };
  make_agent();
  EXPECT_EQ(console->queue_sizes().size(), 6U);
  EXPECT_NE(console->features() & kMultiportBit, 0U);
  introduce();
  EXPECT_EQ(heard_of(), std::vector<bool>{true});
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  client = Fd{};
  EXPECT_EQ(hear(), "1 6 0");
  say(0, kPortOpen, 0);
  EXPECT_EQ(heard_of(), (std::vector<bool>{true, false}));
}

TEST_P(ConsolePorts, WithoutNamesThereIsOneAndNoControl) {
  make({.target = file(path("log"))});
  EXPECT_EQ(console->queue_sizes().size(), 2U);
  EXPECT_EQ(console->features() & kMultiportBit, 0U);
  start(kMultiportBit);  // a transport would not let it through; nor does the device
  EXPECT_TRUE(console->port().open());
  send(kOut, "one");
  EXPECT_EQ(test::read_file(path("log")), "one");
}

TEST_P(ConsolePorts, ADriverOfOnePortUsesTheFirst) {
  make_agent();
  start(0);
  EXPECT_TRUE(console->port().open());
  send(kOut, "one");
  EXPECT_EQ(test::read_file(path("log")), "one");
  submit(kAgentOut, "two");
  submit(kControlOut, "three");
  EXPECT_TRUE(settles());
  EXPECT_FALSE(driver.take_used(kAgentOut));
  EXPECT_FALSE(driver.take_used(kControlOut));
}

TEST_P(ConsolePorts, CarryBytesBothWays) {
  make_agent();
  introduce();
  const auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  const auto text = noise(16U << 20U);
  {
    auto read = std::async(std::launch::async, [&] { return read_up_to(client.get(), text.size(), 500us); });
    pour(kAgentOut, text);
    EXPECT_TRUE(read.get() == text);
  }
  std::jthread writer{[&] { write_all(client.get(), text); }};
  EXPECT_TRUE(collect(kAgentIn, text.size()) == text);
  EXPECT_EQ(std::filesystem::file_size(path("log")), 0U);
}

TEST_P(ConsolePorts, AStreamIsHeldUntilItsReaderTookIt) {
  make_agent();
  introduce();
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  const auto text = noise(1U << 20U);  // more than a socket holds
  submit(kAgentOut, text);
  submit(kAgentOut, "next");
  EXPECT_TRUE(settles());
  EXPECT_FALSE(driver.take_used(kAgentOut)) << "nothing is put aside for a reader that is there";
  EXPECT_TRUE(read_up_to(client.get(), text.size() + 4) == text + "next");
  EXPECT_TRUE(wait_used(kAgentOut));
  EXPECT_TRUE(wait_used(kAgentOut));
}

TEST_P(ConsolePorts, AClientThatLeavesTakesTheChainItBeganWithIt) {
  make_agent();
  introduce();
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  submit(kAgentOut, std::string(1U << 20U, 'x'));
  submit(kAgentOut, "for the next one");
  EXPECT_TRUE(settles());
  client = Fd{};
  EXPECT_EQ(hear(), "1 6 0");
  EXPECT_TRUE(wait_used(kAgentOut));
  EXPECT_TRUE(wait_used(kAgentOut));
  client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  EXPECT_EQ(read_up_to(client.get(), 16), "for the next one");
  on_loop([&] { static_cast<void>(console->finish(0ms)); });
  ASSERT_EQ(console->troubles().size(), 1U);
  EXPECT_TRUE(console->troubles()[0].ends_with(" bytes of port agent lost: nobody read them"));
}

TEST_P(ConsolePorts, InputWaitsUntilTheGuestOpensThePort) {
  make_agent();
  introduce();
  say(1, kPortOpen, 0);
  driver.chain(kAgentIn).writable(64).submit();
  kick(kAgentIn);
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  write_all(client.get(), "unheard");
  EXPECT_TRUE(settles());
  EXPECT_FALSE(driver.take_used(kAgentIn));
  client = Fd{};
  EXPECT_EQ(hear(), "1 6 0");
  client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  write_all(client.get(), "heard");
  say(1, kPortOpen, 1);
  EXPECT_EQ(wait_used(kAgentIn)->text(), "heard");
}

TEST_P(ConsolePorts, WhatCouldNotBeToldIsToldAsItIsLater) {
  make_agent();
  introduce();
  for (int i = 0; i < 20; ++i) {
    const auto client = dial(path("agent"));
  }
  on_loop([&] { console->resize({.columns = 80, .rows = 25}); });
  on_loop([&] { console->resize({.columns = 132, .rows = 43}); });
  EXPECT_TRUE(settles());
  const auto client = dial(path("agent"));
  EXPECT_TRUE(settles());
  using namespace std::string_literals;
  EXPECT_EQ(hear(), "0 5 0 \x84\0\x2b\0"s);
  EXPECT_EQ(hear(), "1 6 1");
  EXPECT_TRUE(is_silent());
}

TEST_P(ConsolePorts, AClientThatChangedUnnoticedIsTwoMessages) {
  make_agent();
  introduce();
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  client = Fd{};
  client = dial(path("agent"));
  EXPECT_TRUE(settles());
  EXPECT_EQ(hear(), "1 6 0");
  EXPECT_EQ(hear(), "1 6 1");
  EXPECT_TRUE(is_silent());
}

TEST_P(ConsolePorts, BuffersThatAreTooSmallComeBackEmptyAndNoMessageIsLost) {
  make_agent();
  start(kMultiportBit);
  say(~0U, kDeviceReady, 1);
  EXPECT_EQ(hear(7), "nothing");
  driver.chain(kControlIn).readable("not writable").submit();
  kick(kControlIn);
  EXPECT_EQ(wait_used(kControlIn)->written, 0U);
  EXPECT_EQ(hear(8), "0 1 1");
  EXPECT_EQ(hear(), "1 1 1");
  say(1, kPortReady, 1);
  EXPECT_EQ(hear(12), "nothing") << "a name does not fit";
  EXPECT_EQ(hear(13), "1 7 1 agent");
}

TEST_P(ConsolePorts, NonsenseIsIgnored) {
  make_agent();
  start(kMultiportBit);
  say(1, kPortReady, 1);  // before it said that it is ready
  say(1, kPortOpen, 1);
  say(~0U, kDeviceReady, 0);
  EXPECT_TRUE(is_silent());
  say(~0U, kDeviceReady, 1);
  EXPECT_TRUE(wait_used(kControlIn));  // is_silent()'s buffer
  EXPECT_EQ(hear(), "1 1 1");
  say(~0U, kDeviceReady, 1);  // again
  for (const std::uint32_t port : {2U, 31U, 0x7fff'ffffU, ~0U}) {
    for (const int event : {1, 2, 3, 4, 5, 6, 7, 8, 0xffff}) {
      say(port, static_cast<std::uint16_t>(event), 1);
    }
  }
  for (const int event : {1, 2, 4, 5, 7, 8, 0xffff}) {
    say(0, static_cast<std::uint16_t>(event), 1);
  }
  say(0, kPortReady, 0);
  say(0, kPortOpen, 1);  // it has not said that it knows the port
  EXPECT_FALSE(console->port().open());
  send(kControlOut, "short");
  send(kControlOut, std::string(5000, '\xff'));
  driver.chain(kControlOut).writable(64).submit();
  kick(kControlOut);
  EXPECT_EQ(wait_used(kControlOut)->written, 0U);
  EXPECT_TRUE(is_silent());
  send(kAgentOut, "data before it was opened");
  const auto client = dial(path("agent"));
  EXPECT_EQ(read_up_to(client.get(), 25), "data before it was opened");
}

TEST_P(ConsolePorts, AResetForgetsWhatTheDriverSaid) {
  make_agent();
  introduce();
  stop();
  EXPECT_FALSE(console->port().open());
  introduce();
  EXPECT_TRUE(console->port().open());
}

TEST_P(ConsolePorts, TheSizeIsInTheConfiguration) {
  make_agent();
  const auto config = [&] {
    std::array<std::uint16_t, 8> words{};
    console->read_config(0, std::as_writable_bytes(std::span{words}));
    return words;
  };
  EXPECT_EQ(config(), (std::array<std::uint16_t, 8>{0, 0, 2, 0, 0, 0, 0, 0}));
  const auto generation = console->config_generation();
  start(kSizeBit);
  on_loop([&] { console->resize({.columns = 80, .rows = 25}); });
  EXPECT_EQ(config(), (std::array<std::uint16_t, 8>{80, 25, 2, 0, 0, 0, 0, 0}));
  EXPECT_NE(console->config_generation(), generation);
  EXPECT_EQ(driver.config_changes(), 1U);
  on_loop([&] { console->resize({.columns = 80, .rows = 25}); });
  EXPECT_EQ(driver.config_changes(), 1U) << "it has not changed";
  std::array<std::byte, 4> beyond{std::byte{1}};
  console->read_config(0xffff'fff0, beyond);
  EXPECT_EQ(beyond, (std::array<std::byte, 4>{}));
}

TEST_P(ConsolePorts, RefusesWhatTheHostDoesNotHave) {
  EXPECT_THROW(make({.target = file(path("no/log"))}), HostError);
  EXPECT_THROW(make({.target = file(path("log")), .ports = {{.name = "a"}, {.name = "a"}}}), HostError);
  EXPECT_THROW(make({.target = file(path("log")), .ports = {{.name = "a", .target = file(path("no/a"))}}}), HostError);
  EXPECT_FALSE(std::filesystem::exists(path("agent")));
}

TEST(PortOptions, AreParsed) {
  using Kind = SerialTarget::Kind;
  const auto agent = parse_port_options("name=org.qemu.guest_agent.0,socket=/run/a,,b");
  EXPECT_EQ(agent.name, "org.qemu.guest_agent.0");
  EXPECT_EQ(agent.target.kind, Kind::Socket);
  EXPECT_EQ(agent.target.path, "/run/a,b");
  EXPECT_EQ(parse_port_options("pty,name=x").target.kind, Kind::Pty);
  EXPECT_EQ(parse_port_options("name=x,null").target.kind, Kind::Null);
  EXPECT_EQ(parse_port_options("name=x,stdio").target.kind, Kind::Stdio);
  EXPECT_EQ(parse_port_options("name=x,file=log").target.path, "log");
  const std::string longest(ConsoleOptions::kLongestName, 'n');
  EXPECT_EQ(parse_port_options("null,name=" + longest).name, longest);
  for (const auto* const bad :
       {"", "name=x", "pty", "name=,pty", "name=a/b,pty", "name=..,pty", "name=a\nb,pty", "name=x,pty,file=y",
        "name=x,file=", "name=x,file", "name=x,socket=", "name=x,pty=maybe", "name=x,tcp=1", "name=x,name=y,pty"}) {
    EXPECT_THROW(static_cast<void>(parse_port_options(bad)), HostError) << bad;
  }
  EXPECT_THROW(static_cast<void>(parse_port_options("null,name=" + longest + "n")), HostError);
}

TEST(ConsoleOptions, AreChecked) {
  ConsoleOptions options{.target = {.kind = SerialTarget::Kind::Stdio, .path = {}}};
  for (std::size_t i = 0; i < ConsoleOptions::kMostPorts; ++i) {
    options.ports.push_back({.name = fmt::format("p{}", i)});
  }
  EXPECT_NO_THROW(check_console(options));
  options.ports.back().target.kind = SerialTarget::Kind::Stdio;
  EXPECT_THROW(check_console(options), HostError) << "two want stdin";
  options.ports.back() = {.name = "p0"};
  EXPECT_THROW(check_console(options), HostError) << "one name twice";
  options.ports.back() = {.name = "last"};
  options.ports.push_back({.name = "one too many"});
  EXPECT_THROW(check_console(options), HostError);
}

}  // namespace
}  // namespace martlet::virtio
