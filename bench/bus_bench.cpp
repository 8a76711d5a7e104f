// Bus look-up: the same device again (the cached hit), and every device in turn (never cached).

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vmm/base/bus.h"

namespace martlet {
namespace {

struct Silent final : BusDevice {
  void read(std::uint64_t, std::span<std::byte>) noexcept override {}
  void write(std::uint64_t, std::span<const std::byte>) noexcept override {}
};

TEST_CASE("bus look-up") {
  for (const std::size_t count : {std::size_t{1}, std::size_t{16}, std::size_t{128}}) {
    Bus bus;
    Silent device;
    for (std::size_t i = 0; i < count; ++i) {
      bus.insert(i * 0x1000, 0x100, "device", device);
    }
    Bus::LastHit last;
    BENCHMARK(std::to_string(count) + " devices, the same again") { return bus.find((count - 1) * 0x1000, 4, last); };
    std::uint64_t turn = 0;
    BENCHMARK(std::to_string(count) + " devices, each in turn") {
      turn = (turn * 5 + 1) % count;  // visits all of a power of two
      return bus.find(turn * 0x1000, 4, last);
    };
  }
}

}  // namespace
}  // namespace martlet
