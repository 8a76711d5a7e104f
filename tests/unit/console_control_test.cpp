// What driver and device tell each other of named ports (virtio 1.2 §5.3.6.2).

#include "devices/virtio/console_control.h"

#include <fmt/format.h>

#include <filesystem>

#include "tests/unit/console_support.h"

namespace martlet::virtio {
namespace {

using namespace std::chrono_literals;

struct NamedPorts : ConsoleTest {
  /// A port "log" on a file and a port "agent" on a socket.
  void make_agent(std::vector<ConsolePort::Hooks> port_hooks = {}) {
    make_ports({{.name = "log", .target = file(path("log"))}, {.name = "agent", .target = socket(path("agent"))}},
               std::move(port_hooks));
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
    start(kConsoleMultiport);
    say(~0U, kDeviceReady, 1);
    EXPECT_EQ(hear(), "0 1 1");
    EXPECT_EQ(hear(), "1 1 1");
    say(0, kPortReady, 1);
    EXPECT_EQ(hear(), "0 7 1 log");
    EXPECT_EQ(hear(), "0 6 1");
    say(0, kPortOpen, 1);
    say(1, kPortReady, 1);
    EXPECT_EQ(hear(), "1 7 1 agent");
    say(1, kPortOpen, 1);
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, NamedPorts, testing::Values(Ring::Split, Ring::Packed), ring_name);

TEST_P(NamedPorts, AreAnnouncedNamedAndOpened) {
  std::vector<bool> opened;
  std::vector<ConsolePort::Hooks> told(1);
  told[0].opened = [&](bool open) { opened.push_back(open); };
  const auto heard_of = [&] {  // asked on the loop's thread, which tells it
    std::vector<bool> copy;
    loop.call([&] { copy = opened; });
    return copy;
  };
  make_agent(std::move(told));
  EXPECT_EQ(ports->queue_sizes().size(), 6U);
  EXPECT_NE(ports->features() & kConsoleMultiport, 0U);
  introduce();
  EXPECT_EQ(heard_of(), std::vector<bool>{true});
  auto client = dial(path("agent"));
  EXPECT_EQ(hear(), "1 6 1");
  client = Fd{};
  EXPECT_EQ(hear(), "1 6 0");
  say(0, kPortOpen, 0);
  EXPECT_EQ(heard_of(), (std::vector<bool>{true, false}));
}

TEST_P(NamedPorts, ADriverOfOnePortUsesTheFirst) {
  make_agent();
  start(0);
  EXPECT_TRUE(ports->port(0).open());
  EXPECT_FALSE(ports->port(1).open());
  send(kOut, "one");
  EXPECT_EQ(test::read_file(path("log")), "one");
  submit(kAgentOut, "two");
  submit(kControlOut, "three");
  EXPECT_TRUE(settles());
  EXPECT_FALSE(driver.take_used(kAgentOut));
  EXPECT_FALSE(driver.take_used(kControlOut));
}

TEST_P(NamedPorts, CarryBytesBothWays) {
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

TEST_P(NamedPorts, AStreamIsHeldUntilItsReaderTookIt) {
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

TEST_P(NamedPorts, AClientThatLeavesTakesTheChainItBeganWithIt) {
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
  on_loop([&] { ports->finish(0ms); });
  ASSERT_EQ(ports->troubles().size(), 1U);
  EXPECT_TRUE(ports->troubles()[0].ends_with(" bytes of port agent lost: nobody read them"));
}

TEST_P(NamedPorts, InputWaitsUntilTheGuestOpensThePort) {
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

TEST_P(NamedPorts, WhatCouldNotBeToldIsToldAsItIsLater) {
  make_agent();
  introduce();
  for (int i = 0; i < 20; ++i) {
    const auto client = dial(path("agent"));
  }
  EXPECT_TRUE(settles());
  const auto client = dial(path("agent"));
  EXPECT_TRUE(settles());
  EXPECT_EQ(hear(), "1 6 1");
  EXPECT_TRUE(is_silent());
}

TEST_P(NamedPorts, AClientThatChangedUnnoticedIsTwoMessages) {
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

TEST_P(NamedPorts, BuffersThatAreTooSmallComeBackEmptyAndNoMessageIsLost) {
  make_agent();
  start(kConsoleMultiport);
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

TEST_P(NamedPorts, NonsenseIsIgnored) {
  make_agent();
  start(kConsoleMultiport);
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
  EXPECT_FALSE(ports->port(0).open());
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

TEST_P(NamedPorts, AResetForgetsWhatTheDriverSaid) {
  make_agent();
  introduce();
  stop();
  EXPECT_FALSE(ports->port(0).open());
  introduce();
  EXPECT_TRUE(ports->port(0).open());
}

TEST_P(NamedPorts, TheirNumberIsInTheConfiguration) {
  make_agent();
  std::array<std::uint16_t, 8> words{};
  ports->read_config(0, std::as_writable_bytes(std::span{words}));
  EXPECT_EQ(words, (std::array<std::uint16_t, 8>{0, 0, 2, 0, 0, 0, 0, 0}));
}

TEST_P(NamedPorts, RefuseWhatTheHostDoesNotHave) {
  EXPECT_THROW(
      make_ports({{.name = "agent", .target = socket(path("agent"))}, {.name = "a", .target = file(path("no/a"))}}),
      HostError);
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
  const std::string longest(PortOptions::kLongestName, 'n');
  EXPECT_EQ(parse_port_options("null,name=" + longest).name, longest);
  for (const auto* const bad :
       {"", "name=x", "pty", "name=,pty", "name=a/b,pty", "name=..,pty", "name=a\nb,pty", "name=x,pty,file=y",
        "name=x,file=", "name=x,file", "name=x,socket=", "name=x,pty=maybe", "name=x,tcp=1", "name=x,name=y,pty"}) {
    EXPECT_THROW(static_cast<void>(parse_port_options(bad)), HostError) << bad;
  }
  EXPECT_THROW(static_cast<void>(parse_port_options("null,name=" + longest + "n")), HostError);
}

TEST(PortOptions, AreChecked) {
  std::vector<PortOptions> ports;
  for (std::size_t i = 0; i < kMostPorts; ++i) {
    ports.push_back({.name = fmt::format("p{}", i)});
  }
  ports.front().target.kind = SerialTarget::Kind::Stdio;
  EXPECT_NO_THROW(check_ports(ports));
  ports.back().target.kind = SerialTarget::Kind::Stdio;
  EXPECT_THROW(check_ports(ports), HostError) << "two want stdin";
  ports.back() = {.name = "p0"};
  EXPECT_THROW(check_ports(ports), HostError) << "one name twice";
  ports.back() = {.name = "last"};
  ports.push_back({.name = "one too many"});
  EXPECT_THROW(check_ports(ports), HostError);
}

}  // namespace
}  // namespace martlet::virtio
