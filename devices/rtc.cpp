#include "devices/rtc.h"

#include <algorithm>
#include <utility>

namespace martlet {
namespace {

using namespace std::chrono_literals;

// MC146818A figure 11; the century's place is the PC's custom, and the FADT names it.
enum class Register : std::uint8_t {
  Seconds = 0x00,
  Minutes = 0x02,
  Hours = 0x04,
  Weekday = 0x06,  // 1 is Sunday
  Day = 0x07,
  Month = 0x08,
  Year = 0x09,
  A = 0x0a,
  B = 0x0b,
  C = 0x0c,
  D = 0x0d,
  Century = 0x32,
};
constexpr std::uint64_t kDataPort = 1;
constexpr std::uint8_t kIndexMask = 0x7f;  // bit 7 gates the NMI on a PC, which has none to gate here

constexpr std::uint8_t kUpdateInProgress = 0x80;  // register A
struct RegisterB {
  static constexpr std::uint8_t kSet = 0x80;
  static constexpr std::uint8_t kBinary = 0x04;
  static constexpr std::uint8_t k24Hours = 0x02;
};
constexpr std::uint8_t kValidRamAndTime = 0x80;  // register D
constexpr std::uint8_t kAfternoon = 0x80;        // of hours in 12-hour mode

// A guest checks "update in progress" and then reads register by register, sure that they belong
// together for 244 µs. So its check holds the time still, and a burst of reads after it sees one
// moment. Long for a burst, too short to be missed by a clock that counts seconds.
constexpr auto kHold = 10ms;

// "The first update cycle begins 500 ms after" the divider starts. Linux sets the time half a second
// early for that.
constexpr auto kFirstUpdate = 500ms;

constexpr unsigned kInvalid = 255;

}  // namespace

Rtc::Milliseconds Rtc::host_clock() {
  return std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now().time_since_epoch());
}

Rtc::Rtc(Clock clock) : clock_{std::move(clock)}, shown_{clock_()} { show_time(shown_); }

std::uint8_t Rtc::read_register(std::uint64_t offset) noexcept {
  if (offset != kDataPort) {
    return 0xff;  // the index cannot be read back
  }
  const std::lock_guard lock{mutex_};
  return read_indexed();
}

void Rtc::write_register(std::uint64_t offset, std::uint8_t value) noexcept {
  const std::lock_guard lock{mutex_};
  if (offset == kDataPort) {
    write_indexed(value);
  } else {
    state_.index = value & kIndexMask;
  }
}

std::uint8_t Rtc::read_indexed() noexcept {
  switch (Register{state_.index}) {
    case Register::A:
      shown_ = clock_();
      return state_.register_a;
    case Register::B:
      return state_.register_b;
    case Register::C:
      return 0;
    case Register::D:
      return kValidRamAndTime;
    case Register::Seconds:
    case Register::Minutes:
    case Register::Hours:
    case Register::Weekday:
    case Register::Day:
    case Register::Month:
    case Register::Year:
    case Register::Century:
      if ((state_.register_b & RegisterB::kSet) == 0) {
        const auto now = clock_();
        if (now < shown_ || now - shown_ >= kHold) {
          shown_ = now;
        }
        show_time(shown_);
      }
      break;
  }
  return state_.memory[state_.index];
}

void Rtc::write_indexed(std::uint8_t value) noexcept {
  switch (Register{state_.index}) {
    case Register::A:
      state_.register_a = value & static_cast<std::uint8_t>(~kUpdateInProgress);
      return;
    case Register::B:
      write_register_b(value);
      return;
    case Register::C:
    case Register::D:        // read-only
    case Register::Weekday:  // follows from the date
      return;
    case Register::Seconds:
    case Register::Minutes:
    case Register::Hours:
    case Register::Day:
    case Register::Month:
    case Register::Year:
    case Register::Century:
      if ((state_.register_b & RegisterB::kSet) == 0) {
        shown_ = clock_();
        show_time(shown_);
        state_.memory[state_.index] = value;
        take_time(shown_);
        return;
      }
      break;
  }
  state_.memory[state_.index] = value;
}

void Rtc::write_register_b(std::uint8_t value) noexcept {
  const bool was_setting = (state_.register_b & RegisterB::kSet) != 0;
  const bool setting = (value & RegisterB::kSet) != 0;
  state_.register_b = value;
  shown_ = clock_();
  if (setting && !was_setting) {
    show_time(shown_);
  } else if (was_setting && !setting) {
    take_time(shown_);
  }
}

void Rtc::show_time(Milliseconds host) noexcept {
  const auto at = [this](Register reg) -> std::uint8_t& { return state_.memory[static_cast<std::size_t>(reg)]; };
  const auto since_epoch = host + state_.offset;
  const auto days = std::chrono::floor<std::chrono::days>(since_epoch);
  const std::chrono::year_month_day date{std::chrono::sys_days{days}};
  const std::chrono::hh_mm_ss time{std::chrono::floor<std::chrono::seconds>(since_epoch - days)};
  const auto year = static_cast<unsigned>(std::clamp(static_cast<int>(date.year()), 0, 9999));
  at(Register::Seconds) = encode(static_cast<unsigned>(time.seconds().count()));
  at(Register::Minutes) = encode(static_cast<unsigned>(time.minutes().count()));
  at(Register::Hours) = encode_hour(static_cast<unsigned>(time.hours().count()));
  at(Register::Weekday) = encode(std::chrono::weekday{std::chrono::sys_days{days}}.c_encoding() + 1);
  at(Register::Day) = encode(static_cast<unsigned>(date.day()));
  at(Register::Month) = encode(static_cast<unsigned>(date.month()));
  at(Register::Year) = encode(year % 100);
  at(Register::Century) = encode(year / 100);
}

void Rtc::take_time(Milliseconds host) noexcept {
  const auto at = [this](Register reg) { return decode(state_.memory[static_cast<std::size_t>(reg)]); };
  const auto seconds = at(Register::Seconds);
  const auto minutes = at(Register::Minutes);
  const auto hours = decode_hour(state_.memory[static_cast<std::size_t>(Register::Hours)]);
  const auto year = at(Register::Year);
  const auto century = at(Register::Century);
  const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(century * 100 + year)},
                                         std::chrono::month{at(Register::Month)}, std::chrono::day{at(Register::Day)}};
  if (seconds > 59 || minutes > 59 || hours > 23 || year > 99 || century > 99 || !date.ok()) {
    return;
  }
  const auto set = std::chrono::sys_days{date}.time_since_epoch() + std::chrono::hours{hours} +
                   std::chrono::minutes{minutes} + std::chrono::seconds{seconds};
  state_.offset = set + kFirstUpdate - host;
}

std::uint8_t Rtc::encode(unsigned number) const noexcept {
  const bool binary = (state_.register_b & RegisterB::kBinary) != 0;
  return static_cast<std::uint8_t>(binary ? number : number / 10 << 4U | number % 10);
}

unsigned Rtc::decode(std::uint8_t byte) const noexcept {
  if ((state_.register_b & RegisterB::kBinary) != 0) {
    return byte;
  }
  const unsigned tens = byte >> 4U;
  const unsigned ones = byte & 0x0fU;
  return tens > 9 || ones > 9 ? kInvalid : tens * 10 + ones;
}

std::uint8_t Rtc::encode_hour(unsigned hour) const noexcept {
  if ((state_.register_b & RegisterB::k24Hours) != 0) {
    return encode(hour);
  }
  const unsigned of_twelve = hour % 12 == 0 ? 12 : hour % 12;
  return static_cast<std::uint8_t>(encode(of_twelve) | (hour >= 12 ? kAfternoon : 0U));
}

unsigned Rtc::decode_hour(std::uint8_t byte) const noexcept {
  if ((state_.register_b & RegisterB::k24Hours) != 0) {
    return decode(byte);
  }
  const unsigned of_twelve = decode(byte & static_cast<std::uint8_t>(~kAfternoon));
  if (of_twelve < 1 || of_twelve > 12) {
    return kInvalid;
  }
  return of_twelve % 12 + ((byte & kAfternoon) != 0 ? 12U : 0U);
}

}  // namespace martlet
