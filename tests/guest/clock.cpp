// Reads the date from the RTC as a kernel does: not during an update, in the format that register B names.
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

enum RtcRegister : u8 { kSeconds = 0, kMinutes = 2, kHours = 4, kDay = 7, kMonth = 8, kYear = 9, kA = 10, kB = 11 };
constexpr u8 kUpdateInProgress = 0x80;
constexpr u8 kTwentyFourHours = 0x02;
constexpr u8 kBinary = 0x04;

u8 rtc(RtcRegister reg) {
  out8(0x70, reg);
  return in8(0x71);
}

struct Date {
  u32 second, minute, hour, day, month, year;
  bool operator==(const Date&) const = default;
};

Date read_date() {
  while ((rtc(kA) & kUpdateInProgress) != 0) {
  }
  const u8 format = rtc(kB);
  const auto number = [format](u8 byte) -> u32 {
    return (format & kBinary) != 0 ? byte : byte / 16U * 10 + byte % 16U;
  };
  const u8 raw_hour = rtc(kHours);
  u32 hour = number(raw_hour & 0x7fU);
  if ((format & kTwentyFourHours) == 0) {
    hour = hour % 12 + ((raw_hour & 0x80U) != 0 ? 12 : 0);
  }
  return {number(rtc(kSeconds)), number(rtc(kMinutes)), hour,
          number(rtc(kDay)),     number(rtc(kMonth)),   number(rtc(kYear))};
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  Date date = read_date();
  for (Date again = read_date(); !(again == date); again = read_date()) {
    date = again;  // the clock ticked in between
  }
  print("20", TwoDigits{date.year}, "-", TwoDigits{date.month}, "-", TwoDigits{date.day}, "T", TwoDigits{date.hour},
        ":", TwoDigits{date.minute}, ":", TwoDigits{date.second}, "Z\n");
  return 0;
}
