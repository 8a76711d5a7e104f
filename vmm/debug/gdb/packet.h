#pragma once
// The lowest layer of gdb's remote protocol (gdb manual, appendix E.1): "$payload#checksum".

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace martlet::gdb {

/// The longest payload we take, and announce as PacketSize.
constexpr std::size_t kMaxPacket = 0x4000;

/// Takes a client's bytes apart. It may send anything: noise between packets is skipped, a packet that is too long
/// is thrown away as it comes.
class PacketReader {
 public:
  enum class Kind : std::uint8_t {
    Packet,     ///< whole, its escapes undone
    Damaged,    ///< wrong checksum, or it ends in the middle of an escape
    TooLong,    ///< more than kMaxPacket
    Ack,        ///< '+'
    Nak,        ///< '-'
    Interrupt,  ///< ^C
  };
  struct Item {
    Kind kind;
    std::string payload{};  ///< of a Packet
  };

  /// Takes bytes from the front of `input` until something is whole; nothing when `input` ends before that.
  [[nodiscard]] std::optional<Item> next(std::string_view& input);

  /// A wrong checksum is no damage any more: nobody could ask for the packet again (QStartNoAckMode).
  void ignore_checksums() noexcept { checks_ = false; }

 private:
  enum class State : std::uint8_t { Between, Payload, Escape, FirstDigit, SecondDigit };

  [[nodiscard]] std::optional<Item> take_between(char byte);
  void take_payload(char byte);
  [[nodiscard]] Item finish(char second_digit);

  State state_ = State::Between;
  bool checks_ = true;
  bool escape_cut_ = false;
  bool too_long_ = false;
  std::uint8_t sum_ = 0;
  char first_digit_ = 0;
  std::string payload_;
};

/// "$payload#checksum", with whatever must be escaped in it escaped.
[[nodiscard]] std::string frame(std::string_view payload);

[[nodiscard]] std::string to_hex(std::span<const std::byte> bytes);
[[nodiscard]] std::string to_hex(std::string_view text);
/// Nothing when it is not pairs of hex digits.
[[nodiscard]] std::optional<std::string> from_hex(std::string_view digits);

/// Reads a packet's arguments one by one.
class Arguments {
 public:
  explicit Arguments(std::string_view text) noexcept : rest_{text} {}

  /// A hexadecimal number of up to 64 bits.
  [[nodiscard]] std::optional<std::uint64_t> number() noexcept;
  /// Takes `word` if it comes next.
  [[nodiscard]] bool take(std::string_view word) noexcept;
  /// What comes before `end`, which is taken, too; everything when there is none.
  [[nodiscard]] std::string_view until(char end) noexcept;
  [[nodiscard]] std::string_view rest() const noexcept { return rest_; }
  [[nodiscard]] bool done() const noexcept { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace martlet::gdb
