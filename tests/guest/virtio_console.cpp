// The console device: whatever comes in goes back out, up to and including an end-of-transmission. Without words it is
// the console, without control queues; with port=NAME, after the ports' handshake, the port of that name.
// hostile=1: before that, requests and rings that break the rules; only where a device that is asked so lives on.
// window=1: the console tells its window's size, and once more when that has changed.
#include "args.h"
#include "check.h"
#include "virtio/driver.h"

namespace {

using namespace guest;
using namespace guest::virtio;

// §5.3.3, §5.3.4
constexpr u64 kSize = bit(0);
constexpr u64 kMultiport = bit(1);
constexpr u64 kMostPortsField = 4;

struct Control {  // §5.3.6.2
  u32 port;
  u16 event;
  u16 value;
};
enum Event : u16 {
  kDeviceReady = 0,
  kPortAdd = 1,
  kPortRemove = 2,
  kPortReady = 3,
  kPortOpen = 6,
  kPortName = 7,
};

constexpr u16 kControlIn = 2;
constexpr u16 kControlOut = 3;
constexpr u32 kMostPorts = (kMostQueues - 2) / 2;
constexpr u16 queue_in(u32 port) { return static_cast<u16>(port == 0 ? 0 : 2 * port + 2); }
constexpr u16 queue_out(u32 port) { return static_cast<u16>(queue_in(port) + 1); }

constexpr u32 kBytes = 128;
constexpr u32 kBuffers = 8;
constexpr u32 kNone = ~0U;
constexpr u8 kEndOfTransmission = 4;

struct Port {
  bool added;
  bool open;
  char name[kBytes];
};

Driver driver;
Port ports[kMostPorts];
u8 input[kBuffers][kBytes];
u8 messages[kBuffers][kBytes];
u8 buffer_of_id[kMostQueues][Queue::kMostDescriptors];

void offer(u16 queue_index, u8* buffers, u8 which) {
  auto& queue = driver.queue(queue_index);
  buffer_of_id[queue_index][queue.add({writable(buffers + which * kBytes, kBytes)})] = which;
}
void offer_all(u16 queue_index, u8* buffers) {
  for (u8 i = 0; i < kBuffers; ++i) {
    offer(queue_index, buffers, i);
  }
  driver.queue(queue_index).kick();
}

bool send(u16 queue_index, const void* bytes, u32 size) {
  Used used;
  return driver.request(queue_index, {readable(bytes, size)}, used);
}
bool say(u32 port, Event event, u16 value) {
  const Control message{port, event, value};
  return send(kControlOut, &message, sizeof message);
}
bool say(u32 port, const char* text) {
  u32 size = 0;
  while (text[size] != '\0') {
    ++size;
  }
  return send(queue_out(port), text, size);
}

void obey(const u8* bytes, u32 size) {
  Control message{};
  check(size >= sizeof message, "a control message is whole");
  __builtin_memcpy(&message, bytes, sizeof message);
  check(message.port < kMostPorts, "a control message is of a port that may be");
  if (message.port >= kMostPorts) {
    return;
  }
  auto& port = ports[message.port];
  check(port.added || message.event == kPortAdd, "a port is added before anything is said of it");
  switch (message.event) {
    case kPortAdd:
      port.added = true;
      say(message.port, kPortReady, 1);
      break;
    case kPortOpen:
      port.open = message.value != 0;
      break;
    case kPortName:
      check(size > sizeof message, "a port's name is not empty");
      for (u32 i = 0; i < size - sizeof message; ++i) {
        port.name[i] = static_cast<char>(bytes[sizeof message + i]);
      }
      break;
    default:
      check_equal(message.event, kPortAdd, "an event that devices send");
      break;
  }
}

/// The first port of this name that is open, or kNone.
u32 find_open(const char* name) {
  for (u32 i = 0; i < kMostPorts; ++i) {
    u32 letter = 0;
    while (ports[i].name[letter] != '\0' && ports[i].name[letter] == name[letter]) {
      ++letter;
    }
    if (letter > 0 && ports[i].open && ports[i].name[letter] == '\0' && (name[letter] == '\0' || name[letter] == ' ')) {
      return i;
    }
  }
  return kNone;
}

/// Until the port of that name is known and open.
bool shake_hands(const char* name, u32& number) {
  offer_all(kControlIn, messages[0]);
  if (!say(0, kDeviceReady, 1)) {
    return false;
  }
  while ((number = find_open(name)) == kNone) {
    Used used;
    if (!driver.wait(kControlIn, used)) {
      return false;
    }
    const u8 which = buffer_of_id[kControlIn][used.id];
    obey(messages[which], used.written);
    offer(kControlIn, messages[0], which);
    driver.queue(kControlIn).kick();
  }
  return say(number, kPortOpen, 1);
}

/// Sends back what came; true once that ended.
bool echo(u32 number, const Used& used) {
  const u8 which = buffer_of_id[queue_in(number)][used.id];
  u8* const bytes = input[which];
  check(used.written > 0 && used.written <= kBytes, "some input, and no more than fits");
  send(queue_out(number), bytes, used.written);
  const bool ended = used.written > 0 && bytes[used.written - 1] == kEndOfTransmission;
  offer(queue_in(number), input[0], which);
  driver.queue(queue_in(number)).kick();
  return ended;
}

/// §5.3.4: columns, then rows.
u32 window() { return driver.config<u32>(0); }
void tell_of_window(u32 size) {
  char text[] = "window 000 000\n";
  u32 columns = size & 0xffffU;
  u32 rows = size >> 16U;
  for (u32 i = 0; i < 3; ++i, columns /= 10, rows /= 10) {
    text[9 - i] = static_cast<char>('0' + columns % 10);
    text[13 - i] = static_cast<char>('0' + rows % 10);
  }
  say(0, text);
}
void watch_window() {
  check(driver.has(kSize), "the device has a window");
  const u32 before = window();
  tell_of_window(before);
  const u64 since = read_tsc();
  while (window() == before && read_tsc() - since < 60'000'000'000) {
    pause();
  }
  tell_of_window(window());
}

/// `number` becomes that of the port to speak on.
bool start(const char* name, u32& number) {
  driver.add_queue(0);
  driver.add_queue(1);
  if (name != nullptr) {
    check(driver.has(kMultiport), "the device has ports");
    const u32 most = driver.config<u32>(kMostPortsField);
    check(most >= 1, "one at least");
    driver.add_queue(kControlIn);
    driver.add_queue(kControlOut);
    for (u32 i = 1; i < most && i < kMostPorts; ++i) {
      driver.add_queue(queue_in(i));
      driver.add_queue(queue_out(i));
    }
  }
  driver.start();
  number = 0;
  const bool ready = name == nullptr || shake_hands(name, number);
  check(ready, "the device shakes hands");
  return ready;
}

template <u32 Count>
void refused(u16 queue, const char* what, const Buffer (&pieces)[Count]) {
  Used used;
  check(driver.request(queue, pieces, used) && used.written == 0, what);
}

void malformed(u16 queue) {
  constexpr u64 kNoMemory = 0xd0000000;  // in the hole below 4 GiB
  constexpr u64 kEndOfSpace = ~u64{0} - 100;
  static u8 bytes[32];
  refused(queue, "bytes where no memory is", {Buffer{kNoMemory, 100, 0}});
  refused(queue, "bytes at the end of all addresses", {Buffer{kEndOfSpace, 200, 0}});
  refused(queue, "4 GiB", {Buffer{0, ~0U, 0}, Buffer{0, ~0U, 0}});
  refused(queue, "bytes to be written to", {writable(bytes, sizeof bytes)});
  refused(queue, "readable after writable", {writable(bytes, 8), readable(bytes, 8)});
  if (driver.ring().indirect) {
    refused(queue, "indirect in indirect", {Buffer{reinterpret_cast<u64>(bytes), 32, kIndirect}});
  }
}
void malformed_messages() {
  for (const Control message :
       {Control{kNone, kPortOpen, 1}, Control{0, 0xffff, 1}, Control{1U << 31U, kPortReady, 1}}) {
    refused(kControlOut, "half a message", {readable(&message, 3)});
    refused(kControlOut, "a message of a port or an event that is not", {readable(&message, sizeof message)});
  }
}

/// Whatever is broken, the device is well again after a reset.
bool break_the_rules(const char* name, u64 wanted, u32& number) {
  malformed(queue_out(number));
  if (name != nullptr) {
    malformed(kControlOut);
    malformed_messages();
  }
  for (const u16 queue : {queue_in(number), queue_out(number), kControlOut}) {
    if (queue == kControlOut && name == nullptr) {
      continue;
    }
    driver.break_ring(queue);
    driver.wait_for_needs_reset();
    __builtin_memset(ports, 0, sizeof ports);
    if (!driver.negotiate(wanted) || !start(name, number)) {
      return false;
    }
  }
  return true;
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  const char* const name = word("port");
  const u64 wanted = name != nullptr ? kMultiport : kSize;
  u32 number = 0;
  if (!driver.open(info, kConsole, wanted) || !start(name, number)) {
    return verdict();
  }
  if (number_word("hostile", 0) != 0 && !break_the_rules(name, wanted, number)) {
    return verdict();
  }
  print("ready\n");

  offer_all(queue_in(number), input[0]);
  say(number, name != nullptr ? "this is a port\n" : "this is the console\n");
  if (number_word("window", 0) != 0) {
    watch_window();
  }
  Used used;
  do {
    if (!driver.wait(queue_in(number), used)) {
      check(false, "a port that ends");
      break;
    }
  } while (!echo(number, used));
  driver.report("console");
  return verdict();
}
