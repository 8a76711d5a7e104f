// Walks the memory map: writes and reads back a word at the start of every stride=N MiB and at both ends of
// each range of RAM; every word differs, so that one place which shows up at two addresses is found. Then
// looks at the holes, which read all ones (or absent=N).
#include "args.h"
#include "check.h"
#include "pvh.h"

extern "C" {
extern const char image_start[];
extern const char image_end[];
}

namespace {

using namespace guest;

constexpr u64 kMiB = 1U << 20U;
constexpr u64 kGiB = 1U << 30U;
constexpr u64 kMapped = 8 * kGiB;  // start.S
constexpr u64 kFirmware = 0xfec00000;
constexpr u64 kWord = sizeof(u64);

u64 pattern(u64 address) { return address * 0x9e3779b97f4a7c15 + 1; }

/// Calls visit for each word to look at in the range; the guest's own image is left alone.
template <class Visitor>
void for_each_word(const MemoryMapEntry& range, u64 stride, Visitor visit) {
  const u64 from = reinterpret_cast<u64>(image_start);
  const u64 to = reinterpret_cast<u64>(image_end);
  const auto look = [&](u64 address) {
    if (address + kWord <= from || address >= to) {
      visit(address);
    }
  };
  const u64 end = range.start + range.size;
  if (range.start >= to || end <= from) {
    look(range.start);
  } else {
    look(to);
  }
  for (u64 at = (range.start / stride + 1) * stride; at + kWord < end; at += stride) {
    look(at);
  }
  look(end - kWord);
}

bool is_described(const HvmStartInfo& info, u64 address) {
  for (const auto& entry : info) {
    if (address >= entry.start && address < entry.start + entry.size) {
      return true;
    }
  }
  return false;
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  const u64 stride = number_word("stride", 2) * kMiB;
  const u64 absent = word("absent") != nullptr ? number_word("absent", 0) : ~u64{0};
  u64 ram = 0;
  u64 end_below_4g = 0;
  u64 end = 0;
  u64 previous = 0;
  for (const auto& entry : info) {
    print("map ", Hex{entry.start}, " ", Hex{entry.size}, " ", entry.type, "\n");
    check(entry.start >= previous, "the map ascends and nothing overlaps");
    previous = entry.start + entry.size;
    if (entry.type != kRam) {
      continue;
    }
    ram += entry.size;
    end = previous;
    if (entry.start < 4 * kGiB) {
      end_below_4g = previous;
    }
    check(end <= kMapped, "all RAM is within what this guest maps");
  }

  u64 words = 0;
  u64 wrong = 0;
  for (const auto& entry : info) {
    if (entry.type == kRam) {
      for_each_word(entry, stride, [&words](u64 address) {
        mmio_write<u64>(address, pattern(address));
        ++words;
      });
    }
  }
  for (const auto& entry : info) {
    if (entry.type == kRam) {
      for_each_word(entry, stride, [&wrong](u64 address) {
        if (mmio_read<u64>(address) != pattern(address)) {
          ++wrong;
          print("FAILED: RAM at ", Hex{address}, " reads ", Hex{mmio_read<u64>(address)}, "\n");
        }
      });
    }
  }
  check_equal(wrong, 0, "words of RAM that did not keep their value");

  // From the first page that the map says nothing about up to the firmware's and the APICs' region.
  u64 hole = (end_below_4g + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
  u64 holes = 0;
  for (; hole < kFirmware; hole += 64 * kMiB) {
    if (!is_described(info, hole)) {
      check_equal(mmio_read<u64>(hole), absent, "a quad in the hole below 4 GiB");
      ++holes;
    }
  }
  check(holes > 0, "there is a hole below 4 GiB");
  const u64 beyond = end > 4 * kGiB ? end : 4 * kGiB;
  if (beyond + kWord <= kMapped && !is_described(info, beyond)) {
    check_equal(mmio_read<u64>(beyond), absent, "a quad beyond all RAM");
  }
  print("ram ", ram, " words ", words, "\n");
  return verdict();
}
