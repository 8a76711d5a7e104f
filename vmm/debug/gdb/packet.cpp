#include "vmm/debug/gdb/packet.h"

#include <fmt/format.h>

#include <utility>

namespace martlet::gdb {
namespace {

constexpr char kInterrupt = '\x03';
constexpr char kEscape = '}';
constexpr unsigned char kEscapeFlip = 0x20;

/// The digit's value, -1 when it is none.
int digit_of(char digit) noexcept {
  if (digit >= '0' && digit <= '9') {
    return digit - '0';
  }
  const auto lower = static_cast<char>(static_cast<unsigned char>(digit) | 0x20U);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

char flipped(char byte) noexcept { return static_cast<char>(static_cast<unsigned char>(byte) ^ kEscapeFlip); }

}  // namespace

std::optional<PacketReader::Item> PacketReader::next(std::string_view& input) {
  while (!input.empty()) {
    const char byte = input.front();
    input.remove_prefix(1);
    switch (state_) {
      case State::Between:
        if (auto item = take_between(byte)) {
          return item;
        }
        break;
      case State::Payload:
      case State::Escape:
        take_payload(byte);
        break;
      case State::FirstDigit:
        first_digit_ = byte;
        state_ = State::SecondDigit;
        break;
      case State::SecondDigit:
        return finish(byte);
    }
  }
  return std::nullopt;
}

std::optional<PacketReader::Item> PacketReader::take_between(char byte) {
  switch (byte) {
    case '$':
      state_ = State::Payload;
      payload_.clear();
      sum_ = 0;
      escape_cut_ = too_long_ = false;
      return std::nullopt;
    case '+':
      return Item{.kind = Kind::Ack};
    case '-':
      return Item{.kind = Kind::Nak};
    case kInterrupt:
      return Item{.kind = Kind::Interrupt};
    default:
      return std::nullopt;
  }
}

void PacketReader::take_payload(char byte) {
  if (byte == '#') {  // never part of a payload, not even escaped
    escape_cut_ = state_ == State::Escape;
    state_ = State::FirstDigit;
    return;
  }
  if (byte == '$') {  // nor is this: the client began again
    state_ = State::Between;
    static_cast<void>(take_between(byte));
    return;
  }
  sum_ = static_cast<std::uint8_t>(sum_ + static_cast<unsigned char>(byte));
  if (state_ == State::Payload && byte == kEscape) {
    state_ = State::Escape;
    return;
  }
  if (payload_.size() == kMaxPacket) {
    too_long_ = true;
  } else {
    payload_ += state_ == State::Escape ? flipped(byte) : byte;
  }
  state_ = State::Payload;
}

PacketReader::Item PacketReader::finish(char second_digit) {
  state_ = State::Between;
  const int high = digit_of(first_digit_);
  const int low = digit_of(second_digit);
  const bool right = high >= 0 && low >= 0 && high * 16 + low == sum_;
  if (escape_cut_ || (checks_ && !right)) {
    return {.kind = Kind::Damaged};
  }
  if (too_long_) {
    return {.kind = Kind::TooLong};
  }
  return {.kind = Kind::Packet, .payload = std::exchange(payload_, {})};
}

std::string frame(std::string_view payload) {
  std::string framed{'$'};
  framed.reserve(payload.size() + 4);
  for (const char byte : payload) {
    if (byte == '#' || byte == '$' || byte == kEscape || byte == '*') {
      framed += kEscape;
      framed += flipped(byte);
    } else {
      framed += byte;
    }
  }
  std::uint8_t sum = 0;
  for (const char byte : std::string_view{framed}.substr(1)) {
    sum = static_cast<std::uint8_t>(sum + static_cast<unsigned char>(byte));
  }
  framed += fmt::format("#{:02x}", sum);
  return framed;
}

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string digits;
  digits.reserve(bytes.size() * 2);
  for (const auto byte : bytes) {
    digits += kDigits[std::to_integer<unsigned>(byte) >> 4U];
    digits += kDigits[std::to_integer<unsigned>(byte) & 0xfU];
  }
  return digits;
}

std::string to_hex(std::string_view text) { return to_hex(std::as_bytes(std::span{text})); }

std::optional<std::string> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) {
    return std::nullopt;
  }
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    const int high = digit_of(digits[i]);
    const int low = digit_of(digits[i + 1]);
    if (high < 0 || low < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

std::optional<std::uint64_t> Arguments::number() noexcept {
  std::uint64_t value = 0;
  std::size_t length = 0;
  for (; length < rest_.size() && digit_of(rest_[length]) >= 0; ++length) {
    if (value >> 60U != 0) {
      return std::nullopt;
    }
    value = value << 4U | static_cast<unsigned>(digit_of(rest_[length]));
  }
  if (length == 0) {
    return std::nullopt;
  }
  rest_.remove_prefix(length);
  return value;
}

bool Arguments::take(std::string_view word) noexcept {
  if (!rest_.starts_with(word)) {
    return false;
  }
  rest_.remove_prefix(word.size());
  return true;
}

std::string_view Arguments::until(char end) noexcept {
  const auto length = rest_.find(end);
  const auto part = rest_.substr(0, length);
  rest_.remove_prefix(length == std::string_view::npos ? rest_.size() : length + 1);
  return part;
}

}  // namespace martlet::gdb
