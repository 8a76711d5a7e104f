// Switches and ways out with unmodified kernels: who reaches whom, by cards that are captured at both ends. Runs on
// fresh-ground.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "tests/boot/virtio_guest.h"
#include "tests/unit/pcapng_reader.h"

namespace martlet::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Functions of these guests:
///   lease       eth0's address, router and resolvers by DHCP
///   can ADDR    pings it until it answers: it is known to be there
///   cannot ADDR pings it in vain; prints "reached" if not
///   transfer ADDR sends a MiB to its port 1001, then takes one from whoever comes to port 80
constexpr std::string_view kFunctions = R"sh(
cat >/tmp/leased <<'LEASED'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev eth0
[ -z "$router" ] || ip route add default via $router
for it in $dns; do echo "nameserver $it"; done >/etc/resolv.conf
echo "lease $ip"
LEASED
chmod +x /tmp/leased
lease() {
  ip link set eth0 up
  await udhcpc -f -q -n -t 10 -T 2 -i eth0 -s /tmp/leased
}
can() { await sh -c "ping -c 1 -W 5 -q $1 >/dev/null" && echo "reached $1"; }
cannot() { ! ping -c 2 -W 2 -q "$1" >/dev/null 2>&1 || echo "reached $1"; }
address() {
  echo 0 >/proc/sys/net/ipv6/conf/$1/accept_dad
  ip link set $1 up
  ip address add 10.79.$2/24 dev $1
  ip -6 address add fd79:${2%.*}::${2#*.}/64 dev $1
}
transfer() {
  dd if=/dev/urandom of=/tmp/mine bs=1M count=1 2>/dev/null
  nc $1 1001 </tmp/mine >/dev/null || exit 2
  say mine sha256sum </tmp/mine
  nc -l -p 80 <&9 >/tmp/theirs &
  await grep -q ':0050 ' /proc/net/tcp /proc/net/tcp6
  echo "guest is ready"
  wait $!
  say theirs sha256sum </tmp/theirs
}
)sh";

std::string script(std::string_view text) { return std::string{kVirtioPrelude}.append(kFunctions).append(text); }

/// A switch for as long as this lives.
class Switch {
 public:
  explicit Switch(std::vector<std::string> words) : name_{words.front()} {
    words.insert(words.begin(), {MARTLET_PROGRAM, "net", "create"});
    output_of(words);
  }
  Switch(const Switch&) = delete;
  Switch& operator=(const Switch&) = delete;
  ~Switch() { output_of({MARTLET_PROGRAM, "net", "delete", name_}); }

  [[nodiscard]] nlohmann::json shown() const {
    return nlohmann::json::parse(output_of({MARTLET_PROGRAM, "net", "show", name_, "--json"}), nullptr, false);
  }

 private:
  std::string name_;
};

/// Six cards: on internal0 and on private0, there with others' VLANs. All captured.
struct Cards {
  std::uint8_t number = 0;  ///< of the guest, the last byte of its addresses
  std::vector<std::string> settings{};

  [[nodiscard]] std::string mac(std::size_t card) const {
    return fmt::format("52:54:00:79:{:02x}:{:02x}", card, number);
  }
  [[nodiscard]] std::string sender(std::size_t card) const {
    return {'\x52', '\x54', '\0', '\x79', static_cast<char>(card), static_cast<char>(number)};
  }
  [[nodiscard]] std::string file(const TempDir& directory, std::size_t card) const {
    return directory.file(fmt::format("{}-{}.pcapng", number, card));
  }
  [[nodiscard]] std::vector<std::string> options(const TempDir& directory) const {
    std::vector<std::string> words{"--name", fmt::format("visitor{}", number)};
    for (std::size_t card = 0; card < settings.size(); ++card) {
      words.insert(words.end(),
                   {"-n", fmt::format("{},mac={},pcap={}", settings[card], mac(card), file(directory, card))});
    }
    return words;
  }
};

enum Direction : std::uint32_t { kInbound = 1, kOutbound = 2 };  // epb_flags

/// The frames of `sender` in a capture, in order.
std::vector<std::string> frames(const std::string& path, const std::string& sender, Direction direction) {
  const Captured file{read_file(path)};
  EXPECT_EQ(file.wrong, "") << path;
  EXPECT_FALSE(file.cut) << path;
  std::vector<std::string> all;
  for (const auto& packet : file.packets) {
    if (packet.direction == direction && packet.bytes.substr(6, 6) == sender) {
      all.push_back(packet.bytes);
    }
  }
  return all;
}

/// Without its 802.1Q tag, if that is of this VLAN; nothing otherwise.
std::string untagged(const std::string& frame, std::uint8_t vlan) {
  const auto tag = std::string{"\x81\0\0", 3} + static_cast<char>(vlan);
  return frame.substr(12, 4) == tag ? frame.substr(0, 12) + frame.substr(16) : std::string{};
}

/// All that arrived is what was sent last, packet by packet.
void expect_all_of_the_last(const std::vector<std::string>& arrived, const std::vector<std::string>& sent) {
  EXPECT_GE(arrived.size(), 4U);  // ARP, IPv4, neighbour discovery, IPv6
  ASSERT_LE(arrived.size(), sent.size());
  EXPECT_TRUE(std::equal(arrived.rbegin(), arrived.rend(), sent.rbegin()))
      << arrived.size() << " arrived, " << sent.size() << " sent";
}

/// The other end of a guest's transfer(), run by `by` where it is.
class Transfer {
 public:
  explicit Transfer(std::vector<std::string> by)
      : by_{std::move(by)},
        listener_{{.command = command(R"(exec busybox nc -l -p 1001 >"$0")", received_),
                   .input = Subprocess::Input::Pipe,
                   .deadline = std::chrono::seconds{300}}} {
    output_of({"dd", "if=/dev/urandom", "of=" + to_send_, "bs=1M", "count=1", "status=none"});
  }
  /// Once the guest is ready.
  void send(const std::string& address, const std::string& port) {
    const auto sent = ::martlet::test::run(
        {.command = command(fmt::format(R"(exec busybox nc -w 60 {} {} <"$0")", address, port), to_send_)});
    EXPECT_EQ(sent.exit_code, 0) << sent;
  }
  void expect_whole(const Report& report) {
    EXPECT_EQ(listener_.wait().exit_code, 0);
    EXPECT_THAT(report.section("mine"), ElementsAre(sha256_of(received_) + "  -"));
    EXPECT_THAT(report.section("theirs"), ElementsAre(sha256_of(to_send_) + "  -"));
  }

 private:
  [[nodiscard]] std::vector<std::string> command(const std::string& script, const std::string& file) const {
    auto words = by_;
    words.insert(words.end(), {"sh", "-c", script, file});
    return words;
  }

  TempDir directory_;
  std::string received_ = directory_.file("received");
  std::string to_send_ = directory_.file("to-send");
  std::vector<std::string> by_;
  Subprocess listener_;
};

/// The address that a guest's DHCP client said it got.
std::string lease_in(const std::string& console) {
  std::smatch found;
  return std::regex_search(console, found, std::regex{R"(lease (10\.78\.0\.[0-9]+))"}) ? found[1].str() : "no lease";
}

TEST(Network, GuestsReachWhomTheirSwitchAndVlanLetThemAndNobodyElse) {
  const TempDir directory;
  const Switch internal{{"internal0", "--address", "10.78.0.1/24", "--address", "fd78::1/64", "--dhcp"}};
  const Switch other{{"private0", "--mode", "private"}};
  const Cards a{
      .number = 1,
      .settings = {"bridge=internal0", "bridge=private0", "bridge=private0,vlan=10", "bridge=private0,vlan=11",
                   "bridge=private0,vlan=30,isolated=on", "bridge=private0,vlans=100-101"}};
  const Cards b{
      .number = 2,
      .settings = {"bridge=internal0", "bridge=private0", "bridge=private0,vlan=10", "bridge=private0,vlan=20",
                   "bridge=private0,vlan=30,isolated=on", "bridge=private0,vlan=100"}};
  const auto guest = [&](const Cards& cards, std::string_view text) {
    // One waits for the other's boot, and for what is not to arrive.
    return Guest{.more = cards.options(directory), .script = script(text), .limit = std::chrono::seconds{400}};
  };
  RunningGuest far{guest(b, R"sh(
    say lease lease
    for card in 1 2 3 4 5; do address eth$card $card.2; done
    ip address add 10.79.6.2/24 dev eth5
    echo "b is ready"
    read answer
    kernel_says
  )sh"),
                   {.input = Subprocess::Input::Pipe}};
  ASSERT_TRUE(far.process().wait_for("b is ready")) << far.wait();
  RunningGuest near{guest(a, R"sh(
    modprobe 8021q
    say lease lease
    for card in 1 2 3 4; do address eth$card $card.1; done
    ip link set eth5 up
    for vlan in 100 101; do ip link add link eth5 name eth5.$vlan type vlan id $vlan; done
    address eth5.100 5.1
    address eth5.101 6.1
    ip route add 10.77.0.1 dev eth1
    allowed() { can 10.78.0.1; for net in 1 2 5; do can 10.79.$net.2; can fd79:$net::2; done; }
    forbidden() { cannot 10.77.0.1; for net in 3 4 6; do cannot 10.79.$net.2; cannot fd79:$net::2; done; }
    say allowed allowed
    say forbidden forbidden
    sent() { for card in 1 2 3 4; do ip link set eth$card down; cat /sys/class/net/eth$card/statistics/tx_packets; done; }
    say sent sent
    ip link set eth1 address 52:54:00:79:01:09
    ip link set eth1 up
    say spoofed cannot 10.79.1.2
    echo "a has spoofed"
    read answer
    kernel_says
  )sh"),
                    {.input = Subprocess::Input::Pipe}};
  ASSERT_TRUE(near.process().wait_for("a has spoofed")) << near.wait();
  for (auto* running : {&near, &far}) {  // the host's way to them
    const auto lease = lease_in(running->process().out());
    output_of({"ping", "-c", "1", "-W", "20", "-q", lease});
  }
  const auto ports = other.shown()["ports"];
  EXPECT_EQ(ports.size(), 10U);
  EXPECT_THAT(ports.dump(), ContainsRegex(R"("foreign_senders":[1-9])"));
  EXPECT_THAT(ports.dump(), AllOf(HasSubstr(R"("vlans":["10*"])"), HasSubstr(R"("vlans":["100-101"])")));
  EXPECT_THAT(ports.dump(), AllOf(HasSubstr(R"("vm":"visitor1")"), HasSubstr(R"("vm":"visitor2")")));
  for (auto* running : {&near, &far}) {
    running->process().type("go on\n");
  }
  const Report near_report{near.wait()};
  const Report far_report{far.wait()};
  expect_good(near_report);
  expect_good(far_report);
  EXPECT_THAT(near_report.section("allowed"),
              ElementsAre("reached 10.78.0.1", "reached 10.79.1.2", "reached fd79:1::2", "reached 10.79.2.2",
                          "reached fd79:2::2", "reached 10.79.5.2", "reached fd79:5::2"));
  EXPECT_THAT(near_report.section("forbidden"), IsEmpty());
  EXPECT_THAT(near_report.section("spoofed"), IsEmpty());

  const auto sent = [&](std::size_t card) { return frames(a.file(directory, card), a.sender(card), kOutbound); };
  const auto arrived = [&](std::size_t card) { return frames(b.file(directory, card), a.sender(card), kInbound); };
  std::vector<std::string> counted;
  for (std::size_t card = 1; card <= 4; ++card) {
    counted.push_back(std::to_string(sent(card).size()));
  }
  EXPECT_EQ(near_report.section("sent"), counted);  // what the guest's own kernel says
  expect_all_of_the_last(arrived(1), sent(1));
  expect_all_of_the_last(arrived(2), sent(2));
  for (const std::size_t card : {3U, 4U}) {  // another VLAN, and two that are isolated
    EXPECT_GE(sent(card).size(), 2U);
    EXPECT_THAT(arrived(card), IsEmpty()) << card;
  }
  std::vector<std::string> trunk;
  std::size_t of_the_other = 0;
  for (const auto& frame : sent(5)) {
    of_the_other += untagged(frame, 101).empty() ? 0 : 1;
    if (auto inner = untagged(frame, 100); !inner.empty()) {
      trunk.push_back(std::move(inner));
    }
  }
  expect_all_of_the_last(arrived(5), trunk);
  EXPECT_GE(of_the_other, 2U);
}

// --- external: behind the uplink is somebody who knows nothing of VMs

TEST(Network, AGuestOnAnExternalSwitchIsInTheUplinksNetwork) {
  Subprocess outside{{.command = {"unshare", "--net", "sleep", "1000"}, .deadline = std::chrono::seconds{300}}};
  const auto pid = std::to_string(outside.pid());
  const std::vector<std::string> there{"nsenter", "--target", pid, "--net"};
  const auto own = output_of({"readlink", "/proc/self/ns/net"});
  ASSERT_TRUE(outside.wait_until([&] { return output_of({"readlink", "/proc/" + pid + "/ns/net"}) != own; }));
  output_of({"sh", "-c",
             "ip link add up1 type veth peer name far0 netns " + pid +
                 " && ip addr add 10.76.0.2/24 dev up1 && ip link set up1 up && nsenter -t " + pid +
                 " -n sh -c 'ip link set lo up && ip addr add 10.76.0.1/24 dev far0 && ip link set far0 up'"});
  const std::vector<std::string> addresses{"ip", "-4", "-brief", "address", "show", "up1"};
  const auto before = output_of(addresses);
  {
    const Switch external{{"external0", "--mode", "external", "--uplink", "up1"}};
    Transfer transfer{there};
    RunningGuest running{{.more = {"-n", "bridge=external0"}, .script = script(R"sh(
      ip link set eth0 up
      ip address add 10.76.0.3/24 dev eth0
      reach() { can 10.76.0.1; can 10.76.0.2; }
      say reached reach
      transfer 10.76.0.1
      kernel_says
    )sh")}};
    ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
    output_of({"ping", "-c", "1", "-W", "20", "-q", "10.76.0.3"});  // the host's way to it
    transfer.send("10.76.0.3", "80");
    const Report report{running.wait()};
    expect_good(report);
    EXPECT_THAT(report.section("reached"), ElementsAre("reached 10.76.0.1", "reached 10.76.0.2"));
    transfer.expect_whole(report);
  }
  EXPECT_EQ(output_of(addresses), before);
  outside.send_signal(SIGKILL);
  outside.wait();
}

// --- -n user

constexpr std::string_view kOutAndIn = R"sh(
say lease lease
say routes ip route
say resolvers cat /etc/resolv.conf
say name nslookup -type=a somebody.martlet.test
transfer 10.8.0.1
kernel_says
)sh";

TEST(Network, AnOrdinaryUsersGuestGetsOutAndIsReached) {
  const std::vector<std::string> nobody{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
  auto opens_kvm = nobody;
  opens_kvm.insert(opens_kvm.end(), {"test", "-w", "/dev/kvm"});
  if (run({.command = opens_kvm}).exit_code != 0) {
    GTEST_SKIP() << "/dev/kvm is not for everybody here";
  }
  // 10.9.0.2 is the host; 10.8.0.1 somebody outside, who knows names.
  output_of({"sh", "-c",
             "ip link add up0 type bridge; ip addr replace 10.9.0.2/24 dev up0 && ip link set up0 up && "
             "ip route replace default via 10.9.0.1 && ip addr replace 10.8.0.1/32 dev lo"});
  const TempDir directory;
  const auto resolvers = directory.file("resolv.conf");
  write_file(resolvers, "nameserver 10.8.0.1\n");
  Subprocess names{{.command = {"sh", "-c",
                                "PATH=$PATH:/usr/sbin exec dnsmasq -k -C /dev/null --no-resolv --no-hosts --pid-file= "
                                "--user=root --bind-interfaces --listen-address=10.8.0.1 "
                                "--address=/somebody.martlet.test/192.0.2.77"},
                    .deadline = std::chrono::seconds{300}}};
  Transfer outside{{}};
  std::vector<std::string> by{
      "unshare", "--mount", "sh", "-c", "mount --bind \"$0\" \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"",
      resolvers};
  by.insert(by.end(), nobody.begin(), nobody.end());
  RunningGuest running{{.more = {"-n", "user,hostfwd=tcp:127.0.0.1:18080:80"}, .script = script(kOutAndIn), .by = by}};
  ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
  EXPECT_THAT(read_file(fmt::format("/proc/{}/status", running.process().pid())), HasSubstr("\nUid:\t65534\t65534"));
  outside.send("127.0.0.1", "18080");
  const Report report{running.wait()};
  expect_good(report);
  outside.expect_whole(report);
  EXPECT_THAT(report.section("lease"), Contains("lease 10.9.0.2"));
  EXPECT_THAT(report.section("routes"), Contains(HasSubstr("default via 10.9.0.1")));
  EXPECT_THAT(report.section("resolvers"), Contains("nameserver 10.8.0.1"));
  EXPECT_THAT(report.section("name"), Contains(HasSubstr("192.0.2.77")));
}

}  // namespace
}  // namespace martlet::test
