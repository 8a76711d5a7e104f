// The network device against a peer at 10.0.2.2: its address by ARP, then echoes of several sizes, which come
// back byte for byte. Words: mac=AA:BB:… (what the device has to say it is), count=N echoes of each size,
// mtu=N, buffer=N (bytes of each receive buffer, where they may be merged), hostile=1 (frames and rings that break
// the rules; only where a device that is asked so lives on).
#include "args.h"
#include "check.h"
#include "virtio/driver.h"

namespace {

using namespace guest;
using namespace guest::virtio;

// §5.1.3
constexpr u64 kMtu = bit(3);
constexpr u64 kMac = bit(5);
constexpr u64 kMergeable = bit(15);
constexpr u64 kStatus = bit(16);
enum ConfigField : u64 { kConfigMac = 0, kConfigStatus = 6, kConfigMtu = 10 };  // §5.1.4
constexpr u16 kReceive = 0;
constexpr u16 kTransmit = 1;

struct [[gnu::packed]] Header {  // §5.1.6
  u8 flags;
  u8 segmentation;
  u16 header_size;
  u16 segment_size;
  u16 checksum_start;
  u16 checksum_offset;
  u16 buffers;
};
static_assert(sizeof(Header) == 12);

struct [[gnu::packed]] Ethernet {
  u8 to[6];
  u8 from[6];
  u16 type;  // big-endian, as all that follows
};
struct [[gnu::packed]] Arp {
  u16 hardware;
  u16 protocol;
  u8 hardware_size;
  u8 protocol_size;
  u16 operation;
  u8 sender[6];
  u8 sender_ip[4];
  u8 target[6];
  u8 target_ip[4];
};
struct [[gnu::packed]] Ip {
  u8 version;
  u8 service;
  u16 size;
  u16 id;
  u16 fragment;
  u8 time_to_live;
  u8 protocol;
  u16 checksum;
  u8 from[4];
  u8 to[4];
};
struct [[gnu::packed]] Icmp {
  u8 type;
  u8 code;
  u16 checksum;
  u16 id;
  u16 sequence;
};
constexpr u16 kArpType = 0x0806;
constexpr u16 kIpType = 0x0800;
constexpr u8 kIcmpProtocol = 1;
constexpr u32 kEchoHeaders = sizeof(Ethernet) + sizeof(Ip) + sizeof(Icmp);
constexpr u8 kOurIp[4] = {10, 0, 2, 15};
constexpr u8 kPeerIp[4] = {10, 0, 2, 2};

constexpr u16 big(u16 value) { return static_cast<u16>(value << 8U | value >> 8U); }
template <class T>
bool same(const T& a, const T& b) {
  return __builtin_memcmp(&a, &b, sizeof a) == 0;
}
template <class T>
T at(const u8* frame, u32 offset) {
  T value;
  __builtin_memcpy(&value, frame + offset, sizeof value);
  return value;
}
u16 checksum(const u8* bytes, u32 size) {
  u32 sum = 0;
  for (u32 i = 0; i < size; i += 2) {
    sum += static_cast<u32>(bytes[i] << 8U) | (i + 1 < size ? bytes[i + 1] : 0U);
  }
  while (sum >> 16U != 0) {
    sum = (sum & 0xffffU) + (sum >> 16U);
  }
  return big(static_cast<u16>(~sum));
}

constexpr u32 kMostBytes = 2048;
constexpr u32 kMostBuffers = 16;
constexpr u32 kAsked = 8;
constexpr u64 kAnswerTime = 4'000'000'000;  // cycles: a second or a few
constexpr u64 kEchoTime = 60'000'000'000;
Driver driver;
u8 our_mac[6] = {2, 0, 0, 0, 0, 1};
u8 peer_mac[6];
Header out_header;
u8 out_frame[kMostBytes];
u8 in_buffers[kMostBuffers][kMostBytes];
u8 in_frame[kMostBytes];
u16 buffer_of_id[Queue::kMostDescriptors];
u32 buffer_size = kMostBytes;
u32 most_merged = 0;

void offer(u16 buffer) {
  auto& queue = driver.queue(kReceive);
  buffer_of_id[queue.add({writable(in_buffers[buffer], buffer_size)})] = buffer;
}

bool send(u32 size) {
  out_header = {};
  Used used;
  if (!driver.request(
          kTransmit,
          {readable(&out_header, sizeof out_header), readable(out_frame, 20), readable(out_frame + 20, size - 20)},
          used)) {
    return false;
  }
  check_equal(used.written, 0, "bytes that the device wrote into what was sent");
  return true;
}

/// The next frame into in_frame; its size, 0 when none comes in so many cycles.
u32 receive(u64 cycles) {
  u32 size = 0;
  u32 buffers = 1;
  for (u32 i = 0; i < buffers; ++i) {
    Used used;
    if (i == 0 ? !driver.wait_for(kReceive, used, cycles) : !driver.wait(kReceive, used)) {
      return 0;
    }
    const u16 buffer = buffer_of_id[used.id];
    check(used.written <= buffer_size, "no more is received than fits");
    u32 skip = 0;
    if (i == 0) {
      check(used.written >= sizeof(Header), "a frame's header is whole");
      const auto header = at<Header>(in_buffers[buffer], 0);
      buffers = driver.has(kMergeable) ? header.buffers : 1U;
      check(buffers >= 1 && buffers <= kMostBuffers, "a frame is in a sensible number of buffers");
      skip = sizeof(Header);
    }
    const u32 part = used.written - skip;
    if (size + part <= sizeof in_frame) {
      __builtin_memcpy(in_frame + size, in_buffers[buffer] + skip, part);
      size += part;
    }
    offer(buffer);
  }
  driver.queue(kReceive).kick();
  most_merged = buffers > most_merged ? buffers : most_merged;
  return size;
}

bool for_us(const u8* frame, u16 type) {
  const auto ethernet = at<Ethernet>(frame, 0);
  return same(ethernet.to, our_mac) && ethernet.type == big(type);
}

/// Asks as often as anybody does: a switch may take a moment until it forwards to a port whose cable was just plugged
/// in.
bool find_peer() {
  auto* const out = out_frame;
  Ethernet ethernet{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {}, big(kArpType)};
  Arp arp{big(1), big(kIpType), 6, 4, big(1), {}, {}, {}, {}};
  __builtin_memcpy(ethernet.from, our_mac, 6);
  __builtin_memcpy(arp.sender, our_mac, 6);
  __builtin_memcpy(arp.sender_ip, kOurIp, 4);
  __builtin_memcpy(arp.target_ip, kPeerIp, 4);
  __builtin_memset(out, 0, 60);
  __builtin_memcpy(out, &ethernet, sizeof ethernet);
  __builtin_memcpy(out + sizeof ethernet, &arp, sizeof arp);
  for (u32 i = 0; i < kAsked; ++i) {
    if (!send(60)) {
      return false;
    }
    while (const u32 size = receive(kAnswerTime)) {
      const auto answer = at<Arp>(in_frame, sizeof(Ethernet));
      if (size >= sizeof(Ethernet) + sizeof(Arp) && for_us(in_frame, kArpType) && answer.operation == big(2) &&
          same(answer.sender_ip, kPeerIp)) {
        __builtin_memcpy(peer_mac, answer.sender, 6);
        return true;
      }
    }
  }
  return false;
}

bool is_answer(u32 size, u32 payload, u16 sequence) {
  if (size < kEchoHeaders || !for_us(in_frame, kIpType)) {
    return false;
  }
  const auto ip = at<Ip>(in_frame, sizeof(Ethernet));
  const auto icmp = at<Icmp>(in_frame, sizeof(Ethernet) + sizeof(Ip));
  if (ip.protocol != kIcmpProtocol || icmp.type != 0 || icmp.sequence != big(sequence)) {
    return false;
  }
  check(same(ip.from, kPeerIp), "the echo comes from the peer");
  check_equal(big(ip.size), sizeof(Ip) + sizeof(Icmp) + payload, "the echo's size");
  check(__builtin_memcmp(in_frame + kEchoHeaders, out_frame + kEchoHeaders, payload) == 0, "the echo's bytes");
  return true;
}

bool echo(u32 payload, u16 sequence) {
  auto* const out = out_frame;
  Ethernet ethernet{{}, {}, big(kIpType)};
  __builtin_memcpy(ethernet.to, peer_mac, 6);
  __builtin_memcpy(ethernet.from, our_mac, 6);
  Ip ip{0x45, 0, big(static_cast<u16>(sizeof(Ip) + sizeof(Icmp) + payload)), big(sequence), 0, 64, kIcmpProtocol, 0,
        {},   {}};
  __builtin_memcpy(ip.from, kOurIp, 4);
  __builtin_memcpy(ip.to, kPeerIp, 4);
  ip.checksum = checksum(reinterpret_cast<const u8*>(&ip), sizeof ip);
  const Icmp icmp{8, 0, 0, big(77), big(sequence)};
  u8* const message = out + sizeof ethernet + sizeof ip;
  __builtin_memcpy(out, &ethernet, sizeof ethernet);
  __builtin_memcpy(out + sizeof ethernet, &ip, sizeof ip);
  __builtin_memcpy(message, &icmp, sizeof icmp);
  for (u32 i = 0; i < payload; ++i) {
    message[sizeof icmp + i] = static_cast<u8>(i * 7 + sequence);
  }
  const u16 sum = checksum(message, static_cast<u32>(sizeof icmp) + payload);
  __builtin_memcpy(message + 2, &sum, sizeof sum);
  if (!send(kEchoHeaders + payload)) {
    return false;
  }
  while (const u32 size = receive(kEchoTime)) {
    if (is_answer(size, payload, sequence)) {
      return true;
    }
  }
  return false;
}

u8 hex_digit(char c) { return static_cast<u8>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10); }

void learn_mac() {
  check(driver.has(kMac), "the device has an address");
  for (u32 i = 0; driver.has(kMac) && i < 6; ++i) {
    our_mac[i] = driver.config<u8>(kConfigMac + i);
  }
  check((our_mac[0] & 1U) == 0, "and it is nobody's group");
  const char* expected = word("mac");
  for (u32 i = 0; expected != nullptr && i < 6; ++i) {
    check_equal(our_mac[i], static_cast<u64>(hex_digit(expected[3 * i]) * 16 + hex_digit(expected[3 * i + 1])),
                "a byte of its address");
  }
}

void start() {
  driver.add_queue(kReceive);
  driver.add_queue(kTransmit);
  driver.start();
  for (u16 i = 0; i < kMostBuffers && driver.queue(kReceive).room() > 0; ++i) {
    offer(i);
  }
  driver.queue(kReceive).kick();
}

// --- What breaks the rules. Each comes back, nothing of it is sent, and the next good frame is.

u16 sequence = 0;

template <u32 Count>
void refused(const char* what, const Buffer (&pieces)[Count]) {
  Used used;
  check(driver.request(kTransmit, pieces, used) && used.written == 0, what);
  check(echo(56, ++sequence), what);
}

void malformed() {
  constexpr u64 kNoMemory = 0xd0000000;  // in the hole below 4 GiB
  constexpr u64 kEndOfSpace = ~u64{0} - 100;
  out_header = {};
  const Buffer header = readable(&out_header, sizeof out_header);
  refused("a header that is too short", {readable(&out_header, 5)});
  refused("a header alone", {header});
  refused("a frame where no memory is", {header, Buffer{kNoMemory, 100, 0}});
  refused("a frame at the end of all addresses", {header, Buffer{kEndOfSpace, 200, 0}});
  refused("a frame of 4 GiB", {header, Buffer{0, ~0U, 0}, Buffer{0, ~0U, 0}});
  refused("a frame longer than any", {header, readable(in_buffers, sizeof in_buffers), Buffer{0x100000, 0x100000, 0}});
  refused("a frame to be written to", {writable(&out_header, sizeof out_header), writable(in_frame, 100)});
  refused("readable after writable", {header, writable(in_frame, 100), readable(out_frame, 100)});
  if (driver.ring().indirect) {
    refused("indirect in indirect", {header, Buffer{reinterpret_cast<u64>(out_frame), 32, kIndirect}});
  }
  static Header lie;
  lie = {.flags = 1,
         .segmentation = 5,
         .header_size = 0xffff,
         .segment_size = 1,
         .checksum_start = 0xffff,
         .checksum_offset = 0xffff,
         .buffers = 0xffff};
  refused("a header that lies", {readable(&lie, sizeof lie), readable(out_frame, 100)});
}

void broken_rings(u64 wanted) {
  for (const u16 queue : {kReceive, kTransmit}) {
    driver.break_ring(queue);
    for (u32 i = 0; queue == kReceive && i < 2 * kMostBuffers;
         ++i) {  // the device looks at what it receives into when frames come
      send(kEchoHeaders + 56);
    }
    driver.wait_for_needs_reset();
    if (!driver.negotiate(wanted)) {
      return;
    }
    start();
    check(echo(56, ++sequence), "an echo after the reset of a broken device");
  }
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  constexpr u64 kWanted = kMtu | kMac | kMergeable | kStatus;
  if (!driver.open(info, kNet, kWanted)) {
    return verdict();
  }
  learn_mac();
  check(driver.has(kMergeable), "receive buffers may be merged");
  if (driver.has(kStatus)) {
    check((driver.config<u16>(kConfigStatus) & 1U) != 0, "the link is up");
  }
  if (word("mtu") != nullptr) {
    check(driver.has(kMtu), "the device has an MTU");
    check_equal(driver.config<u16>(kConfigMtu), number_word("mtu", 0), "which is this");
  }
  buffer_size = static_cast<u32>(number_word("buffer", buffer_size));
  buffer_size = buffer_size < kMostBytes ? buffer_size : kMostBytes;
  start();
  if (!find_peer()) {
    check(false, "the peer answers ARP");
    return verdict();
  }
  if (number_word("hostile", 0) != 0) {
    malformed();
    broken_rings(kWanted);
  }
  for (const u32 payload : {1U, 18U, 56U, 500U, 1000U, 1472U}) {
    for (u64 i = 0; i < number_word("count", 2); ++i) {
      if (!echo(payload, ++sequence)) {
        check(false, "the peer answers an echo");
        return verdict();
      }
    }
  }
  check((most_merged > 1) == (buffer_size < 1400), "long frames are in several buffers, and only if they have to be");
  print("net echoes ", u32{sequence}, " merged ", most_merged, "\n");
  driver.report("net");
  return verdict();
}
