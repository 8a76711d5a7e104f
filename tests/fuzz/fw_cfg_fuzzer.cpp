// A guest that writes anything to fw_cfg's ports, and anything into the memory that its DMA looks at.

#include <cstdlib>

#include "devices/fw_cfg.h"
#include "tests/fuzz/fuzz_guest.h"

namespace martlet {
namespace {

using virtio::FuzzInput;

constexpr std::uint64_t kRam = 0x1'0000;

void run(FuzzInput input) {
  const std::array<GuestRange, 1> ranges{GuestRange{GuestAddr{0}, kRam}};
  const GuestMemory memory{ranges};
  FwCfg device{memory};
  while (!input.empty()) {
    const auto what = input.take<std::uint8_t>();
    const std::uint64_t offset = what % 12U;
    const std::size_t size = std::min<std::size_t>(std::size_t{1} << (what >> 6U), 12 - offset);
    switch (what / 12U % 4U) {
      case 0: {
        const auto value = input.take<std::uint64_t>();
        device.write(offset, std::as_bytes(std::span{&value, 1}).first(std::min<std::size_t>(size, 8)));
        break;
      }
      case 1: {
        std::uint64_t value = 0;
        device.read(offset, std::as_writable_bytes(std::span{&value, 1}).first(std::min<std::size_t>(size, 8)));
        break;
      }
      case 2:
        static_cast<void>(memory.write(GuestAddr{input.take<std::uint16_t>()}, input.take<std::uint32_t>()));
        break;
      default: {  // a whole access, the kind that gets somewhere
        const auto at = input.take<std::uint16_t>();
        static_cast<void>(memory.write(GuestAddr{at}, __builtin_bswap32(input.take<std::uint32_t>() & 0x003f'001fU)));
        static_cast<void>(memory.write(GuestAddr{at + 4U}, __builtin_bswap32(input.take<std::uint16_t>() % 80U)));
        static_cast<void>(memory.write(GuestAddr{at + 8U}, __builtin_bswap64(input.take<std::uint16_t>())));
        const std::uint32_t low = __builtin_bswap32(at);
        device.write(8, std::as_bytes(std::span{&low, 1}));
      }
    }
    const auto note = device.vmcoreinfo();
    if (note && raw(note->start) + note->size < raw(note->start)) {
      std::abort();
    }
  }
}

}  // namespace
}  // namespace martlet

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  martlet::run(martlet::FuzzInput{{data, size}});
  return 0;
}
