#include "net/pcapng.h"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace martlet::pcapng {
namespace {

enum BlockType : std::uint32_t {
  kSection = 0x0a0d0d0a,
  kInterface = 1,
  kStatistics = 5,
  kEnhancedPacket = 6,
};
enum Option : std::uint16_t {
  kEndOfOptions = 0,
  // §4.1
  kUserApplication = 4,
  // §4.2
  kName = 2,
  kMacAddress = 6,
  kTimeResolution = 9,
  // §4.3
  kFlags = 2,
  kDropCount = 4,
  // §4.6
  kReceived = 4,
  kDropped = 5,
};
constexpr std::uint32_t kByteOrder = 0x1a2b3c4d;
constexpr std::uint16_t kLinkTypeEthernet = 1;
constexpr std::uint8_t kNanoseconds = 9;  // 10^-9 s

constexpr std::size_t padding_of(std::size_t size) noexcept { return (4 - size % 4) % 4; }

template <class Value>
std::span<const std::byte> bytes_of(const Value& value) noexcept {
  return std::as_bytes(std::span{&value, 1});
}

constexpr std::uint32_t high(Time time) noexcept { return static_cast<std::uint32_t>(time >> 32U); }
constexpr std::uint32_t low(Time time) noexcept { return static_cast<std::uint32_t>(time); }

/// §3.1: type, length, body, length.
class Block {
 public:
  explicit Block(BlockType type) {
    put(std::uint32_t{type});
    put(std::uint32_t{0});
  }
  void put(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  template <class Value>
  void put(const Value& value) {
    put(bytes_of(value));
  }
  /// §3.5.
  void option(Option code, std::span<const std::byte> value) {
    put(std::uint16_t{code});
    put(static_cast<std::uint16_t>(value.size()));
    put(value);
    bytes_.resize(bytes_.size() + padding_of(value.size()));
  }
  [[nodiscard]] std::vector<std::byte> take() {
    option(kEndOfOptions, {});
    const auto length = static_cast<std::uint32_t>(bytes_.size() + sizeof(std::uint32_t));
    put(length);
    std::memcpy(bytes_.data() + 4, &length, sizeof length);
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

Time now() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return static_cast<Time>(time.tv_sec) * 1'000'000'000 + static_cast<Time>(time.tv_nsec);
}

std::vector<std::byte> section(std::string_view application) {
  Block block{kSection};
  block.put(kByteOrder);
  block.put(std::uint16_t{1});  // version 1.0
  block.put(std::uint16_t{0});
  block.put(~std::uint64_t{0});  // as long as it will be
  block.option(kUserApplication, std::as_bytes(std::span{application}));
  return block.take();
}

std::vector<std::byte> interface(const Interface& interface) {
  Block block{kInterface};
  block.put(kLinkTypeEthernet);
  block.put(std::uint16_t{0});
  block.put(std::uint32_t{0});  // no limit
  block.option(kName, std::as_bytes(std::span{interface.name}));
  if (interface.mac) {
    block.option(kMacAddress, std::as_bytes(std::span{*interface.mac}));
  }
  block.option(kTimeResolution, bytes_of(kNanoseconds));
  return block.take();
}

Envelope::Envelope(const Packet& packet) noexcept {
  tail_size_ = padding_of(packet.size);
  const auto put = [this](const auto& value) {
    std::memcpy(tail_.data() + tail_size_, &value, sizeof value);
    tail_size_ += sizeof value;
  };
  const auto option = [&](Option code, const auto& value) {
    put(std::uint16_t{code});
    put(static_cast<std::uint16_t>(sizeof value));
    put(value);
  };
  option(kFlags, static_cast<std::uint32_t>(packet.direction));
  if (packet.lost != 0) {
    option(kDropCount, packet.lost);
  }
  put(std::uint32_t{kEndOfOptions});
  const auto length = static_cast<std::uint32_t>(head_.size() + packet.size + tail_size_ + sizeof(std::uint32_t));
  put(length);
  const std::array<std::uint32_t, 7> head{kEnhancedPacket,  length,      packet.interface, high(packet.time),
                                          low(packet.time), packet.size, packet.size};
  static_assert(sizeof head == sizeof head_);
  std::memcpy(head_.data(), head.data(), sizeof head);
}

std::vector<std::byte> statistics(std::uint32_t interface, const Counts& counts) {
  Block block{kStatistics};
  const auto time = now();
  block.put(interface);
  block.put(high(time));
  block.put(low(time));
  block.option(kReceived, bytes_of(counts.seen));
  block.option(kDropped, bytes_of(counts.dropped));
  return block.take();
}

}  // namespace martlet::pcapng
