// The entropy device: bytes come, they are not all zero, and no two draws are the same.
#include "check.h"
#include "virtio/driver.h"

namespace {

using namespace guest;
using namespace guest::virtio;

constexpr u16 kRequests = 0;
u8 first[64];
u8 second[64];
u8 pieces[3][24];

bool all_zero(const u8* bytes, u32 size) {
  for (u32 i = 0; i < size; ++i) {
    if (bytes[i] != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  static Driver driver;
  if (!driver.open(info, kEntropy, 0)) {
    return verdict();
  }
  driver.add_queue(kRequests);
  driver.start();
  Used used;
  for (u8* into : {first, second}) {
    if (!driver.request(kRequests, {writable(into, sizeof first)}, used)) {
      return verdict();
    }
    check(used.written > 0 && used.written <= sizeof first, "some bytes come, and no more than fit");
    check(!all_zero(into, used.written), "they are not all zero");
  }
  check(__builtin_memcmp(first, second, used.written) != 0, "two draws differ");

  if (driver.request(kRequests, {writable(pieces[0], 8), writable(pieces[1], 24), writable(pieces[2], 8)}, used)) {
    check(used.written > 0 && used.written <= 40, "a request of three pieces");
    check(used.written < 8 || !all_zero(pieces[0], 8), "its first piece");
    check(used.written < 32 || !all_zero(pieces[1], 24), "its second piece");
    check(all_zero(pieces[0] + 8, 16), "nothing beyond a piece's end");
  }

  // All of the ring in flight, several times round it.
  auto& queue = driver.queue(kRequests);
  for (int round = 0; round < 3; ++round) {
    u32 in_flight = 0;
    for (; queue.room() > 0; ++in_flight) {
      queue.add({writable(first + in_flight % 8 * 8, 8)});
    }
    queue.kick();
    for (; in_flight > 0 && driver.wait(kRequests, used); --in_flight) {
      check(used.written > 0 && used.written <= 8, "one of many requests");
    }
    check_equal(in_flight, 0, "requests that never come back");
  }
  driver.report("rng");
  return verdict();
}
