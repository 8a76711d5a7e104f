// Requests for entropy of any shape, and queues that come and go.

#include "devices/virtio/rng.h"
#include "tests/fuzz/fuzz_guest.h"
#include "vmm/base/fd.h"

namespace martlet::virtio {
namespace {

void run(FuzzInput input) {
  FuzzGuest guest;
  const auto kick = make_eventfd();
  Rng rng;
  rng.start(kVersion1, guest);
  while (!input.empty()) {
    switch (input.take<std::uint8_t>() % 8) {
      case 0:
        rng.start_queue(0, guest.make_queue(0), kick.get());
        break;
      case 1:
        rng.stop_queue(0);
        break;
      case 2:
        guest.poke(input);
        break;
      case 3:
      case 4:
        rng.notified(0);
        break;
      default:
        guest.submit(input, 0);
    }
  }
  rng.stop();
}

}  // namespace
}  // namespace martlet::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::virtio::run(martlet::virtio::FuzzInput{{data, size}});
  return 0;
}
