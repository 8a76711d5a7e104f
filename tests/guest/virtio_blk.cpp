// The block device. The disk is the test's: each of its 64 sectors or more holds its own number as its first
// eight bytes. What the guest writes it leaves there for the test to look at: sector 1 to 8 hold pattern 1.
// Words: serial=TEXT, readonly=1, sectors=N, hostile=1 (requests that break the rules; only where a device
// that is asked so lives on), strict=1 (queues are reset with requests in flight).
#include "args.h"
#include "check.h"
#include "virtio/driver.h"

namespace {

using namespace guest;
using namespace guest::virtio;

// §5.2.3
constexpr u64 kReadOnly = bit(5);
constexpr u64 kBlockSize = bit(6);
constexpr u64 kFlush = bit(9);
constexpr u64 kMultiQueue = bit(12);
constexpr u64 kDiscard = bit(13);
constexpr u64 kWriteZeroes = bit(14);
enum ConfigField : u64 { kCapacity = 0, kConfigBlockSize = 20, kQueues = 34 };                         // §5.2.4
enum Type : u32 { kIn = 0, kOut = 1, kFlushAll = 4, kGetId = 8, kDiscardSome = 11, kWriteZero = 13 };  // §5.2.6
constexpr u32 kUnknownType = 77;
enum Status : u8 { kOk = 0, kIoError = 1, kUnsupported = 2, kUntouched = 0xee };
constexpr u32 kSector = 512;

struct Header {
  u32 type;
  u32 reserved;
  u64 sector;
};
struct Range {
  u64 sector;
  u32 count;
  u32 flags;
};

Driver driver;
constexpr u32 kAtOnce = 16;
u8 data[kAtOnce][kSector];
u8 more[8 * kSector];
Header headers[kAtOnce];
volatile u8 statuses[kAtOnce];

Buffer status_byte(u32 i = 0) { return {reinterpret_cast<u64>(&statuses[i]), 1, kWrite}; }
Buffer header(Type type, u64 sector, u32 i = 0) {
  headers[i] = {type, 0, sector};
  statuses[i] = kUntouched;
  return readable(&headers[i], sizeof headers[i]);
}

/// One request of any number of pieces; the status byte it came back with.
template <u32 Count>
u8 ask(const Buffer (&pieces)[Count], u32* written = nullptr, u16 queue = 0) {
  Used used;
  if (!driver.request(queue, pieces, used)) {
    return kUntouched;
  }
  if (written != nullptr) {
    *written = used.written;
  }
  return statuses[0];
}
u8 read(u64 sector, void* into, u32 size, u16 queue = 0) {
  u32 written = 0;
  const u8 status = ask({header(kIn, sector), writable(into, size), status_byte()}, &written, queue);
  if (status == kOk) {
    check_equal(written, size + 1, "bytes written by a read that went well");
  }
  return status;
}
u8 write(u64 sector, const void* from, u32 size, u16 queue = 0) {
  return ask({header(kOut, sector), readable(from, size), status_byte()}, nullptr, queue);
}
u8 flush() { return ask({header(kFlushAll, 0), status_byte()}); }

void fill(u8* at, u32 size, u64 seed) {
  for (u32 i = 0; i + 8 <= size; i += 8) {
    const u64 value = (seed + i / 8 + 1) * 0x9e3779b97f4a7c15;
    __builtin_memcpy(at + i, &value, sizeof value);
  }
}
bool holds(const u8* at, u32 size, u64 seed) {
  for (u32 i = 0; i + 8 <= size; i += 8) {
    u64 value = 0;
    __builtin_memcpy(&value, at + i, sizeof value);
    if (value != (seed + i / 8 + 1) * 0x9e3779b97f4a7c15) {
      return false;
    }
  }
  return true;
}
bool is_zero(const u8* at, u32 size) {
  for (u32 i = 0; i < size; ++i) {
    if (at[i] != 0) {
      return false;
    }
  }
  return true;
}
u64 first_word(const u8* at) {
  u64 value = 0;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

/// Good requests still work: sector 0 is never written.
void check_alive(const char* after, u16 queue = 0) {
  fill(data[0], kSector, 99);
  const bool well = read(0, data[0], kSector, queue) == kOk && first_word(data[0]) == 0;
  check(well, after);
}

void identity() {
  char id[20] = {};
  u32 written = 0;
  check_equal(ask({header(kGetId, 0), writable(id, sizeof id), status_byte()}, &written), kOk, "GET_ID");
  const char* serial = word("serial");
  for (u32 i = 0; serial != nullptr && i < sizeof id && serial[i] != ' ' && serial[i] != '\0'; ++i) {
    check_equal(static_cast<u8>(id[i]), static_cast<u8>(serial[i]), "a letter of the serial number");
  }
}

void beyond_the_end(u64 capacity) {
  check_equal(read(capacity, data[1], kSector), kIoError, "a read beyond the end");
  check_equal(read(capacity - 1, more, 2 * kSector), kIoError, "a read across the end");
  check_equal(read(~u64{0}, data[1], kSector), kIoError, "a read of the last sector there can be");
  check_equal(read((~u64{0} >> 9U) + 1, data[1], kSector), kIoError, "a read of a sector whose offset wraps");
  check_equal(write(capacity, data[1], kSector), kIoError, "a write beyond the end");
  check_equal(read(0, more, kSector + 1), kIoError, "a read of less than whole sectors");
  check_equal(read(capacity - 1, data[1], kSector), kOk, "a read of the last sector");
  check_equal(first_word(data[1]), capacity - 1, "the last sector's number");
  check_equal(ask({header(static_cast<Type>(kUnknownType), 0), writable(data[1], kSector), status_byte()}),
              kUnsupported, "an unknown request");
  check_alive("a read after errors");
}

void read_only() {
  check_equal(write(1, data[1], kSector), kIoError, "a write to a read-only disk");
  check_equal(read(1, data[1], kSector), kOk, "a read of a read-only disk");
  check_equal(first_word(data[1]), 1, "a sector of a read-only disk");
  check_alive("a read after a refused write");
}

void patterns() {
  check_equal(read(3, data[1], kSector), kOk, "a read");
  check_equal(first_word(data[1]), 3, "a sector's number");
  fill(more, sizeof more, 1);
  // In pieces that keep to no sector: what counts is their sum.
  check_equal(ask({header(kOut, 1), readable(more, 100), readable(more + 100, 1000),
                   readable(more + 1100, sizeof more - 1100), status_byte()}),
              kOk, "a write in pieces");
  check_equal(driver.has(kFlush) ? flush() : u8{kOk}, kOk, "a flush");
  __builtin_memset(more, 0, sizeof more);
  // The header and the status byte too may be in pieces, and share them with data (§2.7.4, §5.2.6).
  header(kIn, 1);
  check_equal(ask({readable(&headers[0], 5), readable(reinterpret_cast<u8*>(&headers[0]) + 5, 11), writable(more, 7),
                   writable(more + 7, 2041), writable(more + 2048, 2048), status_byte()}),
              kOk, "a read in pieces");
  check(holds(more, sizeof more, 1), "what was written comes back");
}

/// As many requests as fit, told by one notification, back in any order.
void many_at_once(u16 queue_index) {
  auto& queue = driver.queue(queue_index);
  const u32 each = driver.ring().indirect ? 1 : 3;
  for (const Type type : {kOut, kIn}) {
    u16 ids[kAtOnce];
    u32 count = 0;
    for (; count < kAtOnce && queue.room() >= each; ++count) {
      fill(data[count], kSector, type == kOut ? 1000 + count : 0);
      ids[count] = queue.add({header(type, 16 + count, count),
                              type == kOut ? readable(data[count], kSector) : writable(data[count], kSector),
                              status_byte(count)});
    }
    queue.kick();
    check(count >= 8, "eight requests and more in flight");
    u32 back = 0;
    for (Used used; back < count && driver.wait(queue_index, used); ++back) {
      u32 which = 0;
      while (which < count && ids[which] != used.id) {
        ++which;
      }
      check(which < count && statuses[which] == kOk, "one of many requests at once");
      check_equal(used.written, type == kOut ? 1 : kSector + 1, "what the device wrote of it");
    }
    check_equal(back, count, "requests that come back");
    for (u32 i = 0; i < count; ++i) {
      check(holds(data[i], kSector, 1000 + i), "its data");
    }
  }
}

void discard_and_zero(u64 capacity) {
  Range range{40, 4, 0};
  if (driver.has(kWriteZeroes)) {
    check_equal(ask({header(kWriteZero, 0), readable(&range, sizeof range), status_byte()}), kOk, "write zeroes");
    check_equal(read(40, more, 4 * kSector), kOk, "a read of zeroes");
    check(is_zero(more, 4 * kSector), "zeroes");
    check_equal(read(44, more, kSector), kOk, "a read beyond the zeroes");
    check_equal(first_word(more), 44, "the sector beyond the zeroes");
    range = {capacity - 1, 2, 0};
    check_equal(ask({header(kWriteZero, 0), readable(&range, sizeof range), status_byte()}), kIoError,
                "write zeroes across the end");
  }
  if (driver.has(kDiscard)) {
    range = {48, 8, 0};
    check_equal(ask({header(kDiscardSome, 0), readable(&range, sizeof range), status_byte()}), kOk, "discard");
    range = {48, 8, 1};  // "unmap", which means nothing here: §5.2.6.2
    check_equal(ask({header(kDiscardSome, 0), readable(&range, sizeof range), status_byte()}), kUnsupported,
                "discard with a flag of write zeroes");
    range = {~u64{0} - 1, 8, 0};
    check_equal(ask({header(kDiscardSome, 0), readable(&range, sizeof range), status_byte()}), kIoError,
                "discard beyond the end");
  }
  check_alive("a read after discard and write zeroes");
}

/// Resets the device with requests in flight; afterwards it is as new.
void reset_in_flight(u64 wanted) {
  auto& queue = driver.queue(0);
  for (u32 i = 0; i < 4; ++i) {
    queue.add({header(kIn, i, i), writable(data[i], kSector), status_byte(i)});
  }
  queue.kick();
  if (!driver.negotiate(wanted)) {
    return;
  }
  for (u32 i = 1; i < 4; ++i) {  // the memory is the driver's again
    fill(data[i], kSector, 5);
  }
  driver.add_queue(0);
  driver.start();
  check_alive("a read after a reset");
  for (u32 i = 1; i < 4; ++i) {
    check(holds(data[i], kSector, 5), "nothing is written for requests of before the reset");
  }
}

/// With a request in flight where strict=1: QEMU 7.2 still completes it on the next ring, against §2.6.1.
void reset_queue() {
  if (number_word("strict", 0) != 0) {
    auto& queue = driver.queue(0);
    queue.add({header(kIn, 0), writable(data[0], kSector), status_byte()});
    queue.kick();
  }
  driver.transport().reset_queue(0);
  check(!driver.transport().queue_enabled(0), "a queue that was reset is not enabled");
  driver.add_queue(0);
  check_alive("a read after its queue was reset");
}

// --- What breaks the rules. Each comes back, with an error or with length 0, and the next good one works.

template <u32 Count>
void refused(const char* what, const Buffer (&pieces)[Count]) {
  Used used;
  if (driver.request(0, pieces, used)) {
    check(statuses[0] != kOk, what);
  }
  check_alive(what);
}

constexpr u64 kNoMemory = 0xd0000000;  // in the hole below 4 GiB
constexpr u64 kEndOfSpace = ~u64{0} - 100;

void malformed() {
  refused("a header that is too short", {readable(&headers[0], 8), status_byte()});
  refused("no header at all", {writable(data[1], kSector), status_byte()});
  refused("no status byte", {header(kIn, 0)});
  refused("nothing to write to", {header(kIn, 0), readable(data[1], kSector)});
  refused("data where no memory is", {header(kIn, 0), Buffer{kNoMemory, kSector, kWrite}, status_byte()});
  refused("data at the end of all addresses", {header(kIn, 0), Buffer{kEndOfSpace, kSector, kWrite}, status_byte()});
  refused("4 GiB of data", {header(kIn, 0), Buffer{0, ~0U, kWrite}, Buffer{0, ~0U, kWrite}, status_byte()});
  refused("a header to be written to", {Buffer{reinterpret_cast<u64>(&headers[0]), 16, kWrite}, status_byte()});
  refused("readable after writable", {header(kIn, 0), writable(data[1], kSector), readable(data[2], kSector)});
  if (driver.ring().indirect) {
    refused("indirect in indirect", {header(kIn, 0), Buffer{reinterpret_cast<u64>(headers), 32, kIndirect}});
  }
}

/// Chains that never end, or lead out of their table.
void linked(const char* what, u16 next) {
  Used used;
  const Buffer piece = header(kIn, 0);
  driver.queue(0).add_linked(piece, next);
  driver.queue(0).kick();
  check(driver.wait(0, used) && used.written == 0, what);
  check_alive(what);
}

void broken_ring(u64 wanted) {
  auto& queue = driver.queue(0);
  if (!driver.ring().packed) {
    linked("a descriptor followed by itself", queue.itself());
    linked("a descriptor followed by one beyond the table", queue.size());
    linked("a descriptor followed by one far beyond the table", 0xffff);
  }
  driver.break_ring(0);
  driver.wait_for_needs_reset();
  if (driver.negotiate(wanted)) {
    driver.add_queue(0);
    driver.start();
    check_alive("a read after the reset of a broken device");
  }
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  constexpr u64 kWanted = kReadOnly | kBlockSize | kFlush | kMultiQueue | kDiscard | kWriteZeroes | kRingReset;
  if (!driver.open(info, kBlock, kWanted)) {
    return verdict();
  }
  const u16 queues = driver.has(kMultiQueue) ? driver.config<u16>(kQueues) : u16{1};
  check(queues >= 1 && queues <= kMostQueues, "a sensible number of queues");
  for (u16 i = 0; i < queues && i < kMostQueues; ++i) {
    driver.add_queue(i);
  }
  driver.start();
  const u64 capacity = driver.config<u64>(kCapacity);
  check_equal(capacity, number_word("sectors", capacity), "the disk's capacity");
  check_equal(driver.has(kReadOnly) ? 1 : 0, number_word("readonly", 0), "whether it is read-only");

  identity();
  if (driver.has(kReadOnly)) {
    read_only();
  } else {
    beyond_the_end(capacity);
    patterns();
    for (u16 i = 0; i < queues; ++i) {
      many_at_once(i);
    }
    discard_and_zero(capacity);
  }
  if (number_word("hostile", 0) != 0) {
    malformed();
    broken_ring(kWanted);
  }
  reset_in_flight(kWanted);
  if (driver.has(kRingReset)) {
    reset_queue();
  }
  print("blk queues ", u32{queues}, driver.has(kDiscard) ? " discard" : "", driver.has(kWriteZeroes) ? " zeroes" : "",
        driver.has(kFlush) ? " flush" : "", driver.has(kRingReset) ? " ring-reset" : "", "\n");
  driver.report("blk");
  return verdict();
}
